"""The step that folds batch norms, done before quantization and export."""

import dataclasses
from typing import ClassVar

from compress.checkpoint import Checkpoint
from compress.pipeline import FOLDED, UNFOLDED, UNPREPARED, UNQUANTIZED, Change, Condition, Resources, Step
from compress.quantity import counted


class Fold(Step):
    """Absorb every batch norm into the convolution or linear layer before it; the network computes the same.

    Batch norms that follow something else, or a layer that is read elsewhere too, stay and are named.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNFOLDED, UNQUANTIZED, UNPREPARED)
    promises: ClassVar[tuple[Condition, ...]] = (FOLDED,)

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Fold; raises CompressError where the network cannot be traced."""
        from compress.build import build
        from compress.fold.structure import find_pairs, fold

        network = build(checkpoint, resources.user)
        pairs, refusals = find_pairs(network, checkpoint.architecture.input_shape)
        weights = fold(checkpoint.weights, network, pairs)
        notes = (f"{counted(len(pairs), 'batch norm')} folded",) if pairs else ("no batch norm to fold",)
        return Change(dataclasses.replace(checkpoint.architecture, folded=pairs), weights, refusals, notes)
