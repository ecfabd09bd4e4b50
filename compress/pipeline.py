"""Steps, the contract each keeps, and running them one after another so that a kill costs at most one step."""

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pydantic

from compress import checkpoint as files
from compress import storage
from compress.architecture import Architecture
from compress.checkpoint import Checkpoint, Record, TrainedOn
from compress.data.spec import DatasetSpec
from compress.device import is_first
from compress.errors import CompressError, Refusal, UsageError
from compress.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

    from compress.data.splits import LearningData
    from compress.networks import UserNetwork


@dataclass(frozen=True)
class Condition:
    """Something that is or is not so of a checkpoint, and what to do where it is not."""

    name: str
    holds: Callable[[Checkpoint], bool]
    remedy: str

    def require(self, checkpoint: Checkpoint, what: str) -> None:
        """Raise CompressError, with the remedy, where it does not hold for what is to be done."""
        if not self.holds(checkpoint):
            raise CompressError(f"{what} needs {self.name}, and was given another: {self.remedy}.")


UNQUANTIZED = Condition(
    "an unquantized network",
    lambda checkpoint: checkpoint.architecture.quantization is None,
    "quantization comes last: prune and train the checkpoint from before it, then quantize again",
)
QUANTIZED = Condition(
    "a quantized network", lambda checkpoint: checkpoint.architecture.quantization is not None, "quantize it first"
)
UNPREPARED = Condition(
    "a network that does not train on integers",
    lambda checkpoint: checkpoint.architecture.prepared is None,
    "it was prepared for quantization-aware training: train it, then convert it (a `convert_qat` step), or start from "
    "the checkpoint before it was prepared",
)
PREPARED = Condition(
    "a network prepared for quantization-aware training",
    lambda checkpoint: checkpoint.architecture.prepared is not None,
    "prepare it first (a `prepare_qat` step), then train it: the order is prepare_qat, train, convert_qat",
)
FOLDED = Condition(
    "a network with its batch norms folded",
    lambda checkpoint: checkpoint.architecture.folded is not None,
    "fold it first (compress fold, or a `fold` step): the order is prune, train, fold, quantize",
)
UNFOLDED = Condition(
    "a network whose batch norms are not folded",
    lambda checkpoint: checkpoint.architecture.folded is None,
    "folding comes after pruning and training: start from the checkpoint before it",
)


@dataclass(frozen=True)
class Resources:
    """What a step may use besides the checkpoint. The test images are not among it: no step can select by them.

    `teacher` answers for distillation; `user` is the network function named on the command line. `partial`
    is where a long step keeps what it needs to go on after a kill, until `keep` has written its result. `source`
    is the checkpoint's own file, beside which lies what was measured of it.
    """

    data: "LearningData | None" = None
    seed: int = 0
    device: str = "cpu"
    teacher: Checkpoint | None = None
    user: "UserNetwork | None" = None
    progress: Progress = silent
    partial: Path | None = None
    source: Path | None = None

    def need_data(self, step: str) -> "LearningData":
        """The data, or a UsageError that says how to give it."""
        if self.data is None:
            raise UsageError(f"{step} needs images: give --data NAME (or `data:` in the recipe).")
        return self.data


@dataclass(frozen=True)
class Change:
    """What a step made of a checkpoint: the new architecture and weights, and what it has to say about it.

    `dataset` and `trained_on` are given where the network is now one for other data.
    """

    architecture: Architecture
    weights: "Mapping[str, Tensor]"
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    figures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    dataset: DatasetSpec | None = None
    trained_on: TrainedOn | None = None


class Step(pydantic.BaseModel):
    """One change of a checkpoint, as a value: its fields are the settings, and calling it applies them.

    Subclasses declare fields, `requires` and `promises`, and implement `apply`, which never edits its input.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    requires: ClassVar[tuple[Condition, ...]] = ()
    promises: ClassVar[tuple[Condition, ...]] = ()

    @property
    def name(self) -> str:
        """The word for this step in recipes, histories and on the command line."""
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def follows(self) -> bool:
        """Whether the answers of a teacher count in what is learnt."""
        return False

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Make the change; the caller has checked `requires` and will check `promises`."""
        raise TypeError(f"{type(self).__name__} does not say what it does")

    def __call__(self, checkpoint: Checkpoint, resources: Resources | None = None) -> Checkpoint:
        """Apply the step and write it into the history.

        Raises CompressError where the checkpoint is not what the step requires, and AssertionError where
        the step broke its own promise.
        """
        resources = resources or Resources()
        for condition in self.requires:
            condition.require(checkpoint, self.name)
        before = checkpoint.fingerprint
        change = self.apply(checkpoint, resources)
        record = Record(
            self.name,
            self.model_dump(mode="json"),
            resources.seed,
            before,
            change.refusals,
            change.notes,
            dict(change.figures),
        )
        after = dataclasses.replace(
            checkpoint,
            architecture=change.architecture,
            weights=change.weights,
            dataset=change.dataset or checkpoint.dataset,
            trained_on=change.trained_on or checkpoint.trained_on,
            history=(*checkpoint.history, record),
        )
        files.require_finite(after.weights, f"the result of {self.name}")
        assert dataclasses.replace(checkpoint).fingerprint == before, f"{self.name} edited its input"
        for condition in self.promises:
            assert condition.holds(after), f"{self.name} promised {condition.name}"
        return after


Finished = Callable[[int, Step, Checkpoint, bool], None]
"""Called after each step with its number, itself, its result, and whether it was found done already."""


def run(
    steps: Sequence[Step],
    checkpoint: Checkpoint,
    resources: Resources | None = None,
    folder: Path | None = None,
    finished: Finished = lambda number, step, result, resumed: None,
    first: int = 1,
) -> Checkpoint:
    """Apply `steps` in order; with a `folder`, keep every checkpoint there and continue after the last one found.

    A step found in the folder counts as done when its history is the one this run would write: the same
    settings, seed and parents. An error names the step it came from. `first` numbers the first step.
    """
    resources = resources or Resources()
    if resources.teacher is None:
        resources = dataclasses.replace(resources, teacher=checkpoint)
    for number, step in enumerate(steps, first):
        path = folder / f"{number:02d}-{step.name}.safetensors" if folder else None
        done = _done(step, checkpoint, resources, path) if path else None
        try:
            result = done or step(
                checkpoint, dataclasses.replace(resources, partial=partial_of(path) if path else None)
            )
        except CompressError as error:
            raise type(error)(f"step {number} ({step.name}): {error}") from error
        if folder and path and not done and is_first():
            keep(result, storage.folder(folder) / path.name)
        checkpoint = result
        finished(number, step, result, done is not None)
    return checkpoint


def keep(result: Checkpoint, path: Path) -> None:
    """Write a step's result, and only then remove what it left beside `path` to go on from after a kill."""
    files.save(result, path)
    partial_of(path).unlink(missing_ok=True)
    shutil.rmtree(steps_folder(partial_of(path)), ignore_errors=True)


def partial_of(path: Path) -> Path:
    """Where a step whose result will be `path` keeps its unfinished state."""
    return path.with_name(path.stem + ".partial.safetensors")


def steps_folder(partial: Path) -> Path:
    """Where a step that is several, one after the other, keeps what each gave, for the `partial` it was given."""
    return partial.with_suffix(".steps")


def _done(step: Step, checkpoint: Checkpoint, resources: Resources, path: Path) -> Checkpoint | None:
    """The result of `step` as an earlier run left it in `path`, or None where there is none or it is another's."""
    if not path.exists():
        return None
    found = files.load(path)
    last = found.history[-1] if found.history else None
    same = (
        last is not None
        and (last.step, last.settings, last.seed) == (step.name, step.model_dump(mode="json"), resources.seed)
        and last.parent == checkpoint.fingerprint
        and found.dataset in (checkpoint.dataset, resources.data.spec if resources.data else None)
    )
    return found if same else None
