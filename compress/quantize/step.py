"""The step that quantizes after training, from ranges seen on calibration images."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from compress.checkpoint import Checkpoint
from compress.errors import CompressError, UsageError, unknown
from compress.pipeline import FOLDED, QUANTIZED, UNPREPARED, UNQUANTIZED, Change, Condition, Resources, Step
from compress.quantity import counted, parse
from compress.quantize.calibration import batches, calibrated
from compress.quantize.target import SIMULATED, Target, WeightScales, scheme, target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.quantize.draft import Draft
    from compress.quantize.ptq import Quantized

RunName = Literal["onnxruntime-cpu", "openvino", "tensorrt"]
TargetName = Literal[RunName, "torch"]
ObserverName = Literal["min-max", "moving-average", "percentile", "mse", "entropy"]


class Quantize(Step):
    """Hold weights and activations as INT8 wherever the target computes on integers.

    Ranges come from calibration images, a batch at a time: memory does not grow with their number.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNPREPARED, FOLDED, UNQUANTIZED)
    promises: ClassVar[tuple[Condition, ...]] = (QUANTIZED,)

    target: TargetName = "onnxruntime-cpu"
    """The runtime the network is meant for; it decides which numbers become integers, and of which kind."""
    images: int = Field(default=512, ge=1)
    """Calibration images to look at."""
    batch: int = Field(default=64, ge=1)
    """Images at a time."""
    observer: ObserverName = "min-max"
    """How the range of an activation is chosen: all values seen, a moving average over batches, a share of the values, the least squared error, or the most information kept (KL)."""
    percentile: float = Field(default=99.99, gt=50, lt=100, allow_inf_nan=False)
    """Per cent of the values that the observer `percentile` keeps."""
    weight_bits: int = Field(default=8, ge=2, le=8)
    """Bits of a weight; others than 8 for the target torch alone, which simulates. Up to 4, two weights share a byte."""
    activation_bits: int = Field(default=8, ge=2, le=8)
    """Bits of an activation, likewise."""
    weight_scales: WeightScales = "channel"
    """One scale for each output channel of a weight, or one for the whole tensor, likewise."""
    equalize: bool = False
    """Bring the channels of neighbouring convolutions to the same range first."""
    adaround: bool = False
    """Learn which way to round each weight."""
    iterations: int = Field(default=1000, ge=1)
    """Steps to learn that in, for each layer."""
    bias_correction: bool = False
    """Give each layer back the mean that rounding took from its outputs."""
    max_drop: str | None = None
    """Largest loss of top-1 on validation images, such as 0.5pp; layers are left in float until it is met."""
    exclude: tuple[str, ...] = ()
    """Layers, or modules with all layers in them, to leave in float."""

    @field_validator("max_drop")
    @classmethod
    def _points(cls, value: str | None) -> str | None:
        if value is not None and parse(value, "pp") < 0:
            raise ValueError("the largest drop is 0pp or more")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.percentile != 99.99 and self.observer != "percentile":
            raise ValueError(f"`percentile` is for the observer percentile, and the observer is {self.observer}")
        if self.iterations != 1000 and not self.adaround:
            raise ValueError("`iterations` are those of adaround, which was not asked for")
        try:
            self._scheme()
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    def _scheme(self) -> Target:
        return scheme(target(self.target), self.weight_bits, self.activation_bits, self.weight_scales)

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Quantize; raises CompressError where the calibration images are of no use or the network cannot be followed."""
        from compress.build import build
        from compress.data.fits import fits
        from compress.quantize.draft import Setting, draft
        from compress.quantize.ptq import held

        data = resources.need_data("quantize")
        fits(data.spec, checkpoint.architecture, checkpoint.dataset)
        count, labels, wanted = min(self.images, len(data.calibration)), set[int](), self._scheme()
        network = build(checkpoint, resources.user)
        left = _left(network, self.exclude)
        setting = Setting(
            checkpoint.architecture.input_shape,
            wanted,
            self.observer,
            self.percentile,
            lambda: batches(data, count, self.batch, labels, resources.progress),
        )
        first = draft(setting, network, left)
        made, gained, figures = self._repaired(first, checkpoint, resources)
        result = made.result
        require_integers(result)

        after = held(checkpoint, result, made.network if made.network is not network else None)
        images = next(batches(data, min(count, self.batch), self.batch, labels))
        apart = distance(images, network, made.quantized, result.rebuilt(after.weights))

        notes = [SIMULATED] * wanted.simulated + calibrated(data, self.images, count, labels, result.silent) + gained
        figures = {"logit_distance": (apart,), **figures}
        return Change(after.architecture, after.weights, result.refusals, tuple(notes), figures)

    def _repaired(
        self, first: "Draft", checkpoint: Checkpoint, resources: Resources
    ) -> "tuple[Draft, list[str], dict[str, tuple[float, ...]]]":
        """The draft after the repairs asked for; what each gained, in words and figures."""
        from compress.macs import layer_macs
        from compress.quantize import draft
        from compress.quantize.mixed import within
        from compress.quantize.validation import Validation

        repairs: dict[str, Callable[[Draft], Draft]] = {
            "equalize": draft.equalized,
            "adaround": partial(draft.rounded, iterations=self.iterations, progress=resources.progress),
            "bias_correction": draft.corrected,
        }
        chosen = {name: repair for name, repair in repairs.items() if getattr(self, name)}
        if not chosen and self.max_drop is None:
            return first, [], {}
        validation = Validation(first.network, resources.need_data("quantize"), resources.seed)
        notes, figures = (
            [f"judged on {counted(len(validation.labels), 'validation image')}"],
            dict[str, tuple[float, ...]](),
        )
        if checkpoint.trained_on == "all":
            notes[0] += ", which the network was trained on: on new ones it may lose more"
        made, plain, worth = first, first, validation.worth(first.quantized)
        for name, repair in chosen.items():
            before, made = worth, repair(made)
            plain = plain if name == "bias_correction" else made
            worth = validation.worth(made.quantized)
            figures |= {
                f"{name}_distance": (before.distance, worth.distance),
                f"{name}_top1": (before.top1, worth.top1),
            }
            notes.append(
                f"{name} ({'; '.join(made.remarks)}): logits {before.distance:.2%} off before and {worth.distance:.2%} after, "
                f"top-1 {before.top1:.2f} % and {worth.top1:.2f} %"
            )
        if self.max_drop is not None:
            limit = parse(self.max_drop, "pp")
            macs = layer_macs(first.network, first.setting.input_shape)
            made = within(limit, made, plain, macs, validation, resources.progress)
            notes.append(f"largest drop {self.max_drop}: {made.remarks[0]}")
        return made, notes, figures


def _left(network: "nn.Module", exclude: tuple[str, ...]) -> dict[str, str]:
    """The layers excluded by name; raises UsageError for a name that is not there, or that no weights go by."""
    weighted = {name.rpartition(".")[0] + "." for name, _ in network.named_parameters()}
    modules = [
        name for name, _ in network.named_modules() if name and any(each.startswith(f"{name}.") for each in weighted)
    ]
    for name in exclude:
        if name not in modules:
            raise unknown("layer", name, modules)
    inside = tuple(f"{prefix}." for prefix in exclude)
    return {name: "it was excluded" for name in modules if name in exclude or name.startswith(inside)}


def require_integers(result: "Quantized") -> None:
    """Raise CompressError where no layer is held as integers, with why the first few are not."""
    if not any(edge.tensor for edge in result.quantization.edges):
        reasons = "; ".join(f"{refusal.layer}: {refusal.reason}" for refusal in result.refusals[:3])
        raise CompressError(
            f"no layer of this network would be held as integers ({reasons or 'it has no convolution or linear layer'}), so "
            "there is nothing to quantize. Exclude fewer layers, or choose another target."
        )


def distance(images: "Tensor", network: "nn.Module", reference: "nn.Module", rebuilt: "nn.Module") -> float:
    """How far the quantized logits are from the float ones, as a share of their length.

    Raises CompressError where the network rebuilt from the checkpoint is not, bit for bit, the one that was quantized.
    """
    import torch

    with torch.no_grad():
        exact, twice = network(images), network(images)
        if not isinstance(exact, torch.Tensor) or exact.dim() != 2:
            raise CompressError(
                "the network does not turn N images into one tensor of logits (N, classes), which all measuring here needs. "
                "Return the logits alone."
            )
        if not exact.isfinite().all():
            raise CompressError(
                "the network in float answers calibration images with NaN or infinity. Look at the images, or go back to a "
                "checkpoint that answers them."
            )
        if not torch.equal(exact, twice):
            raise CompressError(
                "the network in float answers the same images otherwise each time: it draws random numbers in inference, as "
                "F.dropout without `training=self.training` does. Let it draw none there."
            )
        logits, again = reference(images), rebuilt(images)
    if not torch.equal(logits, again):
        raise CompressError(
            "the quantized network cannot be had back from its checkpoint: the rebuilt one answers otherwise. "
            "This is a fault of compress; please report it, with the network's code."
        )
    return float((again - exact).norm() / exact.norm().clamp_min(torch.finfo(exact.dtype).tiny))
