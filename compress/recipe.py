"""A recipe: from which network, on which data, which steps, and what is made and demanded of the result.

A recipe is YAML, checked as a whole before anything starts. Its `steps` are Steps; the other sections say
what `compress run` does around them.
"""

import importlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field

from compress import yaml_file
from compress.checkpoint import TrainedOn
from compress.errors import CompressError, unknown
from compress.limit import Limit
from compress.pipeline import Step
from compress.quantize.target import RUN, SIMULATED, TARGETS

STEPS = {
    "train": "compress.train.step:Train",
    "prune": "compress.prune.step:Prune",
    "sparsify": "compress.prune.sparsify:Sparsify",
    "fold": "compress.fold.step:Fold",
    "quantize": "compress.quantize.step:Quantize",
    "prepare_qat": "compress.quantize.qat_step:PrepareQAT",
    "convert_qat": "compress.quantize.qat_step:ConvertQAT",
}
"""Every step a recipe and the command line know, and where it lives."""

SHIPPED = Path(__file__).parent / "recipes"


def step_class(name: str) -> type[Step]:
    """The step of that name; raises UsageError with the nearest names."""
    if name not in STEPS:
        raise unknown("step", name, STEPS)
    module, _, attribute = STEPS[name].partition(":")
    found: type[Step] = getattr(importlib.import_module(module), attribute)
    return found


class Section(pydantic.BaseModel):
    """Part of a recipe: frozen, and a key it does not know is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NetworkSection(Section):
    """The network to start from."""

    name: str
    """resnet20, torchvision:resnet18, timm:NAME, ...; a network of the user's own is "user" and is named by --network each time."""
    weights: str | None = None
    """A file of plain weights, relative to the recipe; `untrained` starts from random ones; left out, --checkpoint gives a checkpoint."""
    trained_on: TrainedOn = "all"
    """Whether the weights have seen the validation images: all, or train."""


class DataSection(Section):
    """The images to train, calibrate and test with."""

    name: str
    """digits, cifar10:FOLDER, npz:FILE, imagefolder:FOLDER, ...; --data replaces it."""
    seed: int = 0
    """Cuts the validation and calibration images from the train split."""


class EvaluateSection(Section):
    """How accuracy is measured on the test split."""

    batch: int = Field(default=256, ge=1)
    """Images at a time."""


class BenchmarkSection(Section):
    """How time and memory are measured."""

    batches: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 64), min_length=1)
    """Batch sizes."""
    threads: int = Field(default=1, ge=1)
    """Threads a runtime may use."""
    seconds: float = Field(default=20.0, gt=0)
    """Longest time for one batch size, all candidates together."""


class ExportSection(Section):
    """What is written of the result."""

    format: Literal["onnx"] = "onnx"
    """The kind of file."""


class _StepEntry(Section):
    """One step of a recipe: a mapping of the step's name to its settings."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_step(cls, value: Any) -> Any:
        value = {value: {}} if isinstance(value, str) else value
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError("a step is one name and its settings, as in `- prune: {macs: 0.5}`")
        return {name: {} if settings is None else settings for name, settings in value.items()}


_FIELDS: dict[str, Any] = {name: (step_class(name) | None, None) for name in STEPS}
StepEntry = pydantic.create_model("StepEntry", __base__=_StepEntry, **_FIELDS)
"""What stands in a recipe's list of steps, made from the table of steps."""


class Recipe(Section):
    """Everything `compress run` does, as a value."""

    network: NetworkSection
    data: DataSection
    steps: tuple[StepEntry, ...]
    export: ExportSection = ExportSection()
    evaluate: EvaluateSection = EvaluateSection()
    benchmark: BenchmarkSection = BenchmarkSection()
    gate: tuple[Limit, ...] = ()

    @pydantic.field_validator("steps")
    @classmethod
    def _some(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        if not entries:
            raise ValueError("a recipe without steps does nothing; add one, as in `- fold`")
        return entries

    @pydantic.model_validator(mode="after")
    def _exported(self) -> Self:
        for step in self.sequence:
            if (name := getattr(step, "target", None)) in TARGETS and TARGETS[name].simulated:
                raise ValueError(
                    f"{step.name} is for the target {name} ({SIMULATED}), and a run exports what it makes. "
                    f"Give one of {', '.join(RUN)}; `compress quantize` simulates others"
                )
        return self

    @property
    def sequence(self) -> tuple[Step, ...]:
        """The steps themselves, in order."""
        return tuple(next(step for step in dict(entry).values() if step is not None) for entry in self.steps)

    def plain(self) -> dict[str, Any]:
        """The recipe with every default filled in, as it is written beside a run's results."""
        sections = self.model_dump(mode="json", exclude={"steps"})
        steps = [{step.name: step.model_dump(mode="json")} for step in self.sequence]
        return {"network": sections.pop("network"), "data": sections.pop("data"), "steps": steps, **sections}


def read(path: Path) -> Recipe:
    """Read a recipe; errors name line, column, key and the nearest key that exists."""
    return yaml_file.read_yaml(path, Recipe)


def find(name: str) -> Path:
    """The recipe file of that path, or the shipped recipe of that name."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            raise CompressError(f"there is no recipe {path}. `compress recipes` lists those that come with compress.")
        return path
    if name not in shipped():
        raise unknown("recipe", name, shipped())
    return SHIPPED / f"{name}.yaml"


def shipped() -> dict[str, str]:
    """The recipes that come with compress, each with its first comment line."""
    files = sorted(SHIPPED.glob("*.yaml"))
    return {file.stem: file.read_text().splitlines()[0].removeprefix("#").strip() for file in files}
