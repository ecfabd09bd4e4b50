"""What the steps that can take their share while the network trains have in common: when it goes, and that training."""

from typing import Any, Literal, Self

from pydantic import Field, field_serializer, model_validator

from compress.pipeline import Step
from compress.train.step import Train

GRADUAL = ("linear", "cubic")


class Gradual(Step):
    """A step that takes its share at once or, with `epochs`, in rounds while the network trains."""

    schedule: Literal["one-shot", "linear", "cubic"] = "one-shot"
    """When it goes: all before training; or in rounds while it trains, the same number in each, or ever fewer."""
    epochs: int = Field(default=0, ge=0, le=100_000)
    """Passes over the train split; 0 trains nothing."""
    training: Train = Train()
    """The other settings of that training, those of `train`."""

    @property
    def follows(self) -> bool:
        """Whether it trains, and the answers of a teacher count in that."""
        return bool(self.epochs) and self.training.follows

    @model_validator(mode="after")
    def _training_fits(self) -> Self:
        training = self.training
        if "epochs" in training.model_fields_set:
            raise ValueError("give epochs beside training, not in it")
        if training != Train() and not self.epochs:
            raise ValueError("settings of a training are given and nothing is trained: give epochs")
        if training.new_head or training.layers != "all":
            raise ValueError("new_head and layers change what learns: do that in a train step of its own, before")
        if self.schedule in GRADUAL and not self.epochs:
            raise ValueError(f"{self.schedule} takes its share while the network trains: give epochs, or use one-shot")
        return self

    @field_serializer("training")
    def _others(self, training: Train) -> dict[str, Any]:
        return training.model_dump(mode="json", exclude={"epochs"}) if self.epochs else {}
