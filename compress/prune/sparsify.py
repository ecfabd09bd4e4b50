"""The step that sets weights to zero and leaves them in place."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from compress.checkpoint import Checkpoint
from compress.pipeline import UNFOLDED, UNPREPARED, UNQUANTIZED, Change, Condition, Resources
from compress.prune.gradual import GRADUAL, Gradual


class Sparsify(Gradual):
    """Set the weights that are worth least to zero, single ones or two of every four along the input channels (2:4).

    Nothing gets smaller, and only runtimes with kernels for 2:4 get faster; to remove channels, prune, and before
    this. What was zero stays zero, here and in every later step. With `epochs`, the network trains while its
    weights go.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNQUANTIZED, UNFOLDED, UNPREPARED)

    structure: Literal["weights", "2:4"] = "weights"
    """weights, any of them; or 2:4, the pattern of sparse tensor cores."""
    sparsity: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    """Share of the weights that are zero in the end, those that are already included; 2:4 is always one half."""
    criterion: Literal["magnitude", "lamp", "taylor"] = "magnitude"
    """What tells which weights are worth least: their size; their size as layers can be compared by it; the loss without them."""
    allocation: Literal["global", "uniform", "sensitivity"] = "global"
    """How much each layer gives: the lowest scores anywhere, the same share of each, or what accuracy each loses by it."""
    largest: float = Field(default=0.98, gt=0, lt=1, allow_inf_nan=False)
    """The largest share that any one layer may lose."""
    exclude: tuple[str, ...] = ()
    """Layers, or modules with all layers in them, to leave as they are."""
    rounds: int = Field(default=20, ge=1, le=100_000)
    """How often weights go, where it is not one-shot."""
    climb: float = Field(default=0.5, gt=0, le=1)
    """Share of the epochs over which the rounds are spread; the others recover."""
    recalibrate: bool = True
    """Where nothing is trained, measure the batch-norm statistics again afterwards."""
    images: int = Field(default=1024, ge=1)
    """Images to measure those statistics on, or what Taylor or sensitivity needs."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.structure == "2:4":
            if self.sparsity is not None or self.schedule != "one-shot":
                raise ValueError("2:4 takes half of every layer at once: leave out sparsity and schedule")
            if self.criterion == "lamp" or self.allocation != "global":
                raise ValueError(
                    "2:4 takes the same share of every layer: leave out allocation and lamp, which compare layers"
                )
        elif self.sparsity is None:
            raise ValueError("give sparsity, the share of the weights to be zero")
        elif self.sparsity > self.largest:
            raise ValueError(
                f"sparsity {self.sparsity:g} is above `largest`, the share a layer may lose ({self.largest:g})"
            )
        if self.criterion == "lamp" and self.allocation != "global":
            raise ValueError(
                "lamp compares layers, and within one ranks as magnitude does: use allocation global, or magnitude"
            )
        if self.training.patience is not None and self.schedule in GRADUAL:
            raise ValueError("the best epoch may be one before all weights went: leave patience out, or use one-shot")
        return self

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Zero; raises CompressError where no layer has weights to give, or the training fails."""
        from compress.prune.zeroing import sparsify

        return sparsify(self, checkpoint, resources)
