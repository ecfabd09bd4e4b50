"""The two steps around a training on integers: before it, and after it."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from compress.checkpoint import Checkpoint
from compress.errors import UsageError
from compress.pipeline import (
    PREPARED,
    QUANTIZED,
    UNFOLDED,
    UNPREPARED,
    UNQUANTIZED,
    Change,
    Condition,
    Resources,
    Step,
    run,
    steps_folder,
)
from compress.quantize.step import TargetName
from compress.quantize.target import scheme, target
from compress.train.step import Train

TRAINING = Train(rate=3e-4, warmup=0.1, distillation=0.9)
"""How `compress quantize --qat` trains where nothing else is said: gently, after the network it starts from."""


class PrepareQAT(Step):
    """Make a network ready to train on the integers of a target, which is what `train` does with it next.

    Ranges start from calibration images. Dropout and batch norms that cannot be folded are from here on as in
    inference. After the training, `convert_qat` makes it an INT8 network.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNQUANTIZED, UNFOLDED, UNPREPARED)
    promises: ClassVar[tuple[Condition, ...]] = (PREPARED,)

    target: TargetName = "onnxruntime-cpu"
    """The runtime the network is meant for; it decides which numbers become integers, and of which kind."""
    weight_bits: int = Field(default=8, ge=2, le=8)
    """Bits of a weight; others than 8 for the target torch alone, which simulates."""
    activation_bits: int = Field(default=8, ge=2, le=8)
    """Bits of an activation, likewise."""
    step_sizes: Literal["observed", "learned"] = "observed"
    """Where scales come from: the ranges that are met; or the gradient, as a weight's does (LSQ)."""
    norms: float = Field(default=0.3, ge=0, le=1)
    """Share of the training after which batch norms hold their statistics."""
    ranges: float = Field(default=0.75, ge=0, le=1)
    """Share of the training after which observed ranges are held."""
    images: int = Field(default=512, ge=1)
    """Calibration images to start the ranges from."""
    batch: int = Field(default=64, ge=1)
    """Images at a time."""

    @model_validator(mode="after")
    def _scheme(self) -> Self:
        try:
            scheme(target(self.target), self.weight_bits, self.activation_bits)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Prepare; raises CompressError where the calibration images are of no use or the network cannot be followed."""
        from compress.quantize.qat import prepare

        return prepare(self, checkpoint, resources)


class ConvertQAT(Step):
    """Make a network that trained on integers an INT8 one, its batch norms folded; it computes the same, bit for bit."""

    requires: ClassVar[tuple[Condition, ...]] = (PREPARED,)
    promises: ClassVar[tuple[Condition, ...]] = (QUANTIZED,)

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Convert; raises CompressError where a range is NaN or infinity."""
        from compress.quantize.qat import convert

        return convert(checkpoint, resources)


class QAT(PrepareQAT):
    """Prepare, train and convert: what `compress quantize --qat` does. Each is a step of its own in the history."""

    epochs: int = Field(default=3, ge=1, le=100_000)
    """Passes over the train split."""
    training: Train = TRAINING
    """The other settings of that training, those of `train`; the checkpoint given is its teacher."""

    @field_validator("training", mode="before")
    @classmethod
    def _upon_ours(cls, value: Any) -> Any:
        return {**TRAINING.model_dump(exclude_unset=True), **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _epochs_once(self) -> Self:
        if "epochs" in self.training.model_fields_set:
            raise ValueError("give epochs beside training, not in it")
        return self

    @property
    def name(self) -> str:
        """The word for it on the command line."""
        return "quantize"

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that this is."""
        prepare = PrepareQAT(**self.model_dump(include=set(PrepareQAT.model_fields)))
        return (prepare, self.training.model_copy(update={"epochs": self.epochs}), ConvertQAT())

    def __call__(self, checkpoint: Checkpoint, resources: Resources | None = None) -> Checkpoint:
        """Apply the three; with `resources.partial`, keep what is done in a folder beside it, and go on from there.

        Raises UsageError for a setting of the training that cannot be had here, before anything is done.
        """
        from compress.quantize.qat_training import require_trainable

        require_trainable(self.training)
        resources = resources or Resources()
        folder = steps_folder(resources.partial) if resources.partial else None
        return run(self.steps, checkpoint, resources, folder)
