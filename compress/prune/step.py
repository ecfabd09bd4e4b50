"""The step that removes channels."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compress.checkpoint import Checkpoint
from compress.errors import CompressError
from compress.pipeline import UNFOLDED, UNPREPARED, UNQUANTIZED, Change, Condition, Resources, Step

if TYPE_CHECKING:
    from torch import nn


class Prune(Step):
    """Remove the channels that are worth least, from every layer that carries them; the network really shrinks.

    The classifier's outputs stay, and so does every layer named among the refusals. Give exactly one target.
    `sparsify` zeroes single weights instead, and shrinks nothing.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNFOLDED, UNQUANTIZED, UNPREPARED)

    macs: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    """Share of the checkpoint's multiply-accumulates to keep."""
    channel_ratio: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    """Share of the channels to remove."""
    criterion: Literal["l1", "l2", "fpgm", "bn-scale", "random"] = "l2"
    """What tells which channels are worth least."""
    allocation: Literal["uniform", "global"] = "uniform"
    """How much each group gives: the same share of each, or the lowest scores anywhere."""
    round_to: int = Field(default=8, ge=1, le=1024)
    """What stays of a group is a multiple of this many channels. INT8 kernels are fastest at 16, which leaves narrow networks less to give."""
    largest: float = Field(default=0.9, gt=0, lt=1, allow_inf_nan=False)
    """The largest share that any one group may lose."""
    reconstruct: bool = False
    """Choose channels by what the layers after them lose without them on calibration images, and solve what is left again to answer as before; no labels, no training."""
    recalibrate: bool = True
    """Measure the batch-norm statistics again on calibration images afterwards; not after `reconstruct`, which has them right."""
    images: int = Field(default=1024, ge=1)
    """Calibration images for either."""
    exclude: tuple[str, ...] = ()
    """Layers, or modules with all layers in them, to leave as they are."""

    @model_validator(mode="after")
    def _reconstruct_decides(self) -> Self:
        if self.reconstruct and (self.criterion != "l2" or self.allocation != "uniform"):
            raise ValueError(
                "reconstruct measures what each channel of each group is worth: leave out criterion and allocation"
            )
        return self

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.macs is None) == (self.channel_ratio is None):
            raise ValueError("give exactly one target: macs (the share to keep) or channel_ratio (the share to remove)")
        if self.channel_ratio is not None and self.channel_ratio > self.largest:
            raise ValueError(
                f"channel_ratio {self.channel_ratio:g} is above `largest`, the share a group may lose ({self.largest:g})"
            )
        return self

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Prune; raises CompressError where no channel can go, or the target cannot be reached."""
        from compress.build import build
        from compress.prune.allocation import ALLOCATIONS, Bounds, cost_of, for_macs, for_ratio, lowest, too_small
        from compress.prune.criteria import score_groups
        from compress.prune.groups import find_groups, lost
        from compress.prune.narrow import remove, size_of
        from compress.prune.reconstruct import cheapest, rank, reconstruct

        architecture, bounds = checkpoint.architecture, Bounds(self.round_to, self.largest)
        network = build(checkpoint, resources.user)
        groups, refused = find_groups(network, architecture.input_shape, self.exclude)
        cost, allocation = cost_of(network, architecture.input_shape), ALLOCATIONS[self.allocation]
        if self.reconstruct:
            saved, allocation = cost if self.macs is not None else None, cheapest
            scores, unscored = rank(network, groups, saved, resources, self.images)
        else:
            scores, unscored = score_groups(network, groups, self.criterion, resources.seed)
        scores, small = too_small(scores, bounds)
        refusals = refused + unscored + small
        if not scores:
            raise CompressError(
                f"no channel of this network can be removed: {'; '.join(f'{r.layer}: {r.reason}' for r in refusals[:3])}."
            )
        counts = (
            for_macs(allocation, scores, bounds, self.macs, cost)
            if self.macs is not None
            else for_ratio(allocation, scores, bounds, self.channel_ratio or 0)
        )
        if not any(counts.values()):
            raise CompressError(
                f"nothing was removed: what was asked for is less than one step of {self.round_to} channels in any group. "
                "Ask for more to go, or lower `round_to`."
            )
        going = lost(lowest(scores, counts))
        if self.reconstruct:
            narrowed, unsolved, gained = reconstruct(
                network, going, architecture.input_shape, resources, self.images, self.exclude
            )
        else:
            narrowed, unsolved, gained = remove(network, going), (), None
        notes = [
            f"{sum(counts.values())} of {sum(group.channels for group in groups)} channels removed, from "
            f"{sum(map(bool, counts.values()))} of {len(groups)} groups; at most {self.largest:.0%} of any one",
            f"{cost(counts):.3f} of the MACs kept",
        ]
        if gained:
            notes.append(gained)
        elif self.recalibrate:
            notes.append(self._recalibrate(narrowed, resources))
        widths = {layer: size_of(narrowed.get_submodule(layer)) for layer in going}
        return Change(
            dataclasses.replace(architecture, widths={**architecture.widths, **widths}),
            narrowed.state_dict(),
            refusals + unsolved,
            tuple(notes),
        )

    def _recalibrate(self, network: "nn.Module", resources: Resources) -> str:
        """Measure the batch norms' statistics again, in place; returns what there is to say of it."""
        from compress.prune.calibration import batches
        from compress.prune.recalibrate import batch_norms, recalibrate

        if not batch_norms(network):
            return "no batch norm to recalibrate"
        recalibrate(network.to(resources.device), batches(resources, self.images, "prune", augmented=True))
        network.cpu()
        return f"batch norms recalibrated on up to {self.images} shifted and flipped images"
