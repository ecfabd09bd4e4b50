"""The step that folds batch norms, done before quantization and export."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from compress.checkpoint import Checkpoint
from compress.pipeline import FOLDED, UNFOLDED, UNQUANTIZED, Change, Condition, Resources, Step

if TYPE_CHECKING:
    from torch import Tensor


class Fold(Step):
    """Absorb every batch norm into the convolution or linear layer before it; the network computes the same.

    Batch norms that follow something else, or a layer that is read elsewhere too, stay and are named.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNFOLDED, UNQUANTIZED)
    promises: ClassVar[tuple[Condition, ...]] = (FOLDED,)

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Fold; raises CompressError where the network cannot be traced."""
        from compress.build import build
        from compress.fold.batchnorm import absorb
        from compress.fold.structure import find_pairs

        network = build(checkpoint, resources.user)
        pairs, refusals = find_pairs(network, checkpoint.architecture.input_shape)
        weights: dict[str, Tensor] = dict(checkpoint.weights)
        for layer, norm in pairs:
            weight, bias = absorb(
                weights[f"{layer}.weight"],
                weights.get(f"{layer}.bias"),
                weights.pop(f"{norm}.running_mean"),
                weights.pop(f"{norm}.running_var"),
                weights.pop(f"{norm}.weight", None),
                weights.pop(f"{norm}.bias", None),
                network.get_submodule(norm).eps,  # type: ignore[arg-type]  # find_pairs saw to it that this is a batch norm
            )
            weights.pop(f"{norm}.num_batches_tracked", None)
            weights |= {f"{layer}.weight": weight, f"{layer}.bias": bias}
        notes = (f"{len(pairs)} batch norms folded",) if pairs else ("no batch norm to fold",)
        return Change(dataclasses.replace(checkpoint.architecture, folded=pairs), weights, refusals, notes)
