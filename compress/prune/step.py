"""The step that removes channels or blocks."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compress.checkpoint import Checkpoint
from compress.pipeline import UNFOLDED, UNPREPARED, UNQUANTIZED, Change, Condition, Resources
from compress.prune.gradual import GRADUAL, Gradual
from compress.quantize.step import RunName
from compress.quantize.target import TARGETS

MULTIPLE = 8
TARGETED = ("macs", "parameters", "latency", "channel_ratio")
OF_CHANNELS = ("channel_ratio", "criterion", "allocation", "round_to", "largest", "reconstruct")
SPARSIFY = "prune removes channels or blocks; single weights and 2:4 are set to zero by sparsify, which shrinks nothing"
OF_LATENCY = ("runtime", "batch", "timing_threads")


class Prune(Gradual):
    """Remove the channels that are worth least, or whole residual blocks; the network really shrinks.

    The classifier's outputs stay, and so does every layer named among the refusals. Give exactly one target. With
    `epochs`, the network trains after each round. `sparsify` zeroes single weights instead, and shrinks nothing.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNQUANTIZED, UNFOLDED, UNPREPARED)

    structure: Literal["channels", "blocks"] = "channels"
    """channels, of every layer that carries them; or blocks, residual ones without which the logits change least."""
    macs: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    """Share of the checkpoint's multiply-accumulates to keep."""
    parameters: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    """Share of the checkpoint's parameters to keep."""
    latency: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    """Share of the checkpoint's time to keep, as measured here in `runtime`: the result depends on this machine."""
    channel_ratio: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    """Share to remove of all channels that `exclude` leaves to choose from; where some groups have none to give, others give more."""
    runtime: Literal["onnxruntime", "openvino", "tensorrt"] = "onnxruntime"
    """What latency is measured in."""
    batch: int = Field(default=1, ge=1)
    """Images at a time when latency is measured."""
    timing_threads: int = Field(default=1, ge=1)
    """Processor threads the runtime has then."""
    target: RunName | None = None
    """Where INT8 will run: gives `round_to`, and latency is measured in INT8."""
    criterion: Literal["l1", "l2", "fpgm", "bn-scale", "taylor", "activation", "random"] = "l2"
    """What tells which channels are worth least: their weights, or what the loss (taylor) or the next layers make of them."""
    allocation: Literal["uniform", "global", "sensitivity"] = "uniform"
    """How much each group gives: the same share of each, the lowest scores anywhere, or what accuracy each loses by it."""
    round_to: int | None = Field(default=None, ge=1, le=1024)
    """What stays of a group is a multiple of this many channels: 8, or what `target` computes anyway, 16 or 32. INT8 kernels are fastest there, and narrow networks have less to give."""
    largest: float = Field(default=0.9, gt=0, lt=1, allow_inf_nan=False)
    """The largest share that any one group may lose."""
    reconstruct: bool = False
    """Choose channels by what the layers after them lose without them on calibration images, and solve what is left again to answer as before; no labels, no training."""
    rounds: int = Field(default=5, ge=1, le=1000)
    """How often something goes, where it is not one-shot; each round is trained with the same share of the epochs."""
    recalibrate: bool = True
    """Measure the batch-norm statistics again on calibration images afterwards; not after `reconstruct`, which has them right."""
    images: int = Field(default=1024, ge=1)
    """Images for either, or what a criterion or sensitivity needs."""
    exclude: tuple[str, ...] = ()
    """Layers, or modules with all layers in them, to leave as they are."""

    @property
    def multiple(self) -> int:
        """The multiple of channels that stays of a group."""
        return self.round_to or (TARGETS[self.target].round_to if self.target else MULTIPLE)

    @property
    def goal(self) -> tuple[str, float]:
        """What the one target is of, and its share."""
        return next((name, share) for name in TARGETED if (share := getattr(self, name)) is not None)

    @property
    def as_blocks(self) -> str:
        """How to ask for blocks instead: with structure blocks, and without what is about channels."""
        names = (*OF_CHANNELS, *(("target",) if self.latency is None else ()))
        others = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
        return "structure blocks" + f" without {' and '.join(others)}" * bool(others)

    @model_validator(mode="before")
    @classmethod
    def _zeroes_nothing(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "sparsity" in values or values.get("structure") in ("weights", "2:4"):
            raise ValueError(SPARSIFY)
        return values

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if sum(getattr(self, name) is not None for name in TARGETED) != 1:
            raise ValueError(
                "give exactly one target: macs, parameters or latency (the share to keep), or channel_ratio (the share to remove)"
            )
        if self.channel_ratio is not None and self.channel_ratio > self.largest:
            raise ValueError(
                f"channel_ratio {self.channel_ratio:g} is above `largest`, the share a group may lose ({self.largest:g})"
            )
        if self.structure == "blocks" and (found := self._chosen(OF_CHANNELS)):
            raise ValueError(
                f"{found} is about channels, and blocks go whole, those first without which the logits change least: leave it out"
            )
        if self.latency is None and (found := self._chosen(OF_LATENCY)):
            raise ValueError(f"{found} is about measuring latency: leave it out, or give latency")
        return self

    @model_validator(mode="after")
    def _target_counts(self) -> Self:
        if self.target is None:
            return self
        if self.structure == "blocks" and self.latency is None:
            raise ValueError(
                "target gives the multiple of channels, and the INT8 that latency is measured in: leave it out"
            )
        if self.latency is not None and not self.target.startswith(self.runtime):
            raise ValueError(
                f"latency is to be measured in {self.runtime}, and the INT8 for {self.target} is meant for another runtime: "
                "give the runtime that target names"
            )
        return self

    @model_validator(mode="after")
    def _reconstruct_decides(self) -> Self:
        if self.reconstruct and (self.criterion != "l2" or self.allocation != "uniform"):
            raise ValueError(
                "reconstruct measures what each channel of each group is worth: leave out criterion and allocation"
            )
        return self

    @model_validator(mode="after")
    def _rounds_fit(self) -> Self:
        if self.schedule not in GRADUAL and self._chosen(("rounds",)):
            raise ValueError(f"rounds are of a schedule, {' or '.join(GRADUAL)}: give one, or leave rounds out")
        if self.schedule in GRADUAL and self.epochs < self.rounds:
            raise ValueError(f"{self.rounds} rounds are each trained: give at least as many epochs, or fewer rounds")
        return self

    def _chosen(self, names: tuple[str, ...]) -> str:
        """The first of some fields that is not as it is where nobody chose it, or ""."""
        fields = type(self).model_fields
        return next((name for name in names if getattr(self, name) != fields[name].default), "")

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Prune; raises CompressError where nothing can go, the target cannot be reached, or the training fails."""
        from compress.prune.removal import Channels
        from compress.prune.rounds import in_rounds
        from compress.prune.shorten import Blocks

        cut = (Channels if self.structure == "channels" else Blocks)(self, checkpoint, resources)
        return in_rounds(self, checkpoint, resources, cut) if self.epochs else cut(checkpoint, 1.0)
