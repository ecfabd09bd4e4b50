"""A whole recipe: from a network's weights to files, measurements, a report and a verdict, all in one folder.

FOLDER/recipe.yaml            the recipe with every default filled in
FOLDER/NN-STEP.safetensors    the checkpoint after each step
FOLDER/*.onnx                 what can be deployed, each with its sidecar
FOLDER/measurements.json      every number, raw
FOLDER/report.*               JSON, Markdown, HTML, JUnit
FOLDER/run.json               what was done where and how long it took, written last
"""

import dataclasses
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic.dataclasses

from compress import __version__, document, gate, measurement, storage, yaml_file
from compress import checkpoint as files
from compress.architecture import STRICT
from compress.checkpoint import Checkpoint
from compress.environment import environment
from compress.errors import UsageError
from compress.gate_rendering import Verdict
from compress.measurement import Environment
from compress.pipeline import Resources, Step, run
from compress.progress import Progress, Said, silent, unsaid
from compress.recipe import NetworkSection, Recipe
from compress.report import rendering
from compress.report.report import Report, from_recordings

if TYPE_CHECKING:
    from compress.data.splits import Data
    from compress.networks import UserNetwork

KIND, FORMAT = "compress run", 1
UNTRAINED = "untrained"


@dataclasses.dataclass(frozen=True)
class Given:
    """What the command line adds to a recipe: where things lie, and what to compute with."""

    home: Path
    checkpoint: Path | None = None
    data: str | None = None
    data_folder: Path | None = None
    calibration: Path | None = None
    network: str | None = None
    seed: int = 0
    device: str = "cpu"

    @cached_property
    def user(self) -> "UserNetwork | None":
        """The function `network` names, its file run now."""
        from compress.networks import load_user

        return load_user(self.network) if self.network else None


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Manifest:
    """What a run did, where, and how long it took: apart from the checkpoints, so that their bytes do not depend on it."""

    seconds: dict[str, float]
    fingerprints: dict[str, str]
    environment: Environment
    version: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a run: the report, the files it was written as, and what the recipe's limits say of it."""

    report: Report
    written: tuple[Path, ...]
    verdict: Verdict


def plan(recipe: Recipe, given: Given) -> list[str]:
    """What a run would do, a line each, without doing it."""
    start = given.checkpoint or recipe.network.weights or "--checkpoint, which has to be given"
    lines = [f"start from {recipe.network.name}: {start}", f"data: {given.data or recipe.data.name}"]
    for number, step in enumerate(recipe.sequence, 1):
        settings = ", ".join(f"{name}={value}" for name, value in step.model_dump(exclude_defaults=True).items())
        lines.append(f"{number:02d} {step.name}{f' ({settings})' if settings else ''}")
    bench = recipe.benchmark
    lines.append(f"export {recipe.export.format}; parity of every hop; accuracy on the test images")
    lines.append(f"benchmark batches {', '.join(map(str, bench.batches))} with {bench.threads} threads")
    lines.append(f"gate: {'; '.join(map(str, recipe.gate)) or 'no limits'}")
    return lines


def execute(recipe: Recipe, folder: Path, given: Given, progress: Progress = silent, said: Said = unsaid) -> Outcome:
    """Do everything a recipe says, in `folder`; started again after a kill, go on after the last finished step.

    Raises CompressError where something cannot be done, CheckFailed where a hop's parity fails, UsageError
    where the folder holds the run of another recipe.
    """
    from compress.verify import verify

    against = gate.references(recipe.gate, given.home)  # one that is missing is said before anything is trained
    data = _data(recipe, given)
    start = _start(recipe.network, data, given)
    _claim(folder, recipe)
    resources = Resources(data.learning, given.seed, given.device, None, given.user, progress)
    clock = _Clock()

    leading = next(
        (number for number, step in enumerate(recipe.sequence) if step.name != "train"), len(recipe.sequence)
    )
    chain: list[tuple[str, Checkpoint]] = [("00-start", start)]

    def finished(number: int, step: Step, result: Checkpoint, resumed: bool) -> None:
        chain.append((f"{number:02d}-{step.name}", result))
        seconds = clock.lap(chain[-1][0])
        notes = "".join(f"; {note}" for note in result.history[-1].notes)
        said(f"{chain[-1][0]}: {'done already' if resumed else f'{seconds:.1f} s'}{notes}")

    files.save(start, folder / "00-start.safetensors")
    baseline = run(recipe.sequence[:leading], start, resources, folder, finished)
    resources = dataclasses.replace(resources, teacher=baseline)
    run(recipe.sequence[leading:], baseline, resources, folder, finished, first=leading + 1)
    recording = verify(recipe, folder, chain[leading:], data, given, progress, said)
    clock.lap("measure")
    measurement.write(folder / "measurements.json", recording)
    report = from_recordings([folder])
    written = rendering.write(report, folder / "report")
    clock.lap("report")
    manifest = Manifest(
        clock.laps,
        {name: checkpoint.fingerprint for name, checkpoint in chain},
        environment(recipe.benchmark.threads),
        __version__,
    )
    document.write(folder / "run.json", KIND, FORMAT, manifest)
    results = gate.check(report, recipe.gate, against, manifest.environment)
    return Outcome(report, written, Verdict(gate.outcome(results), results))


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> float:
        """Close a lap and return its length."""
        now = time.monotonic()
        self.laps[name], self._last = now - self._last, now
        return self.laps[name]


def _claim(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe into the folder; raises UsageError where another one is there."""
    text = yaml_file.dumps(recipe.plain())
    place = storage.folder(folder) / "recipe.yaml"
    if place.exists():
        if storage.read_bytes(place, "recipe").decode(errors="replace") != text:
            raise UsageError(
                f"{folder} holds the run of another recipe (see {place}). Give another -o, or remove the folder to start over."
            )
    elif any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no run. Give another -o, or an empty folder.")
    else:
        storage.write_text(place, text)


def _data(recipe: Recipe, given: Given) -> "Data":
    from compress.data.load import load, load_for

    name = given.data or recipe.data.name
    for located in ("npz:", "imagefolder:"):
        if not given.data and name.startswith(located):
            name = located + str(given.home / Path(name.removeprefix(located)).expanduser())
    if given.checkpoint is not None:
        described = files.header(given.checkpoint).description
        return load_for(described.architecture, described.dataset, name, given.data_folder, given.calibration)
    return load(name, given.data_folder, recipe.data.seed, given.calibration)


def _start(section: NetworkSection, data: "Data", given: Given) -> Checkpoint:
    """The checkpoint the steps begin with: the one given, or the recipe's weights imported."""
    from compress.importing import import_checkpoint

    if given.checkpoint is not None:
        found = files.load(given.checkpoint)
        name = found.architecture.source if found.architecture.source == "user" else found.architecture.title
        if name != section.name:
            raise UsageError(
                f"the recipe is for {section.name}, and {given.checkpoint} holds a {found.architecture.title}. Give another checkpoint, or change the recipe."
            )
        return found
    if section.weights is None:
        raise UsageError(
            f"the recipe starts from a trained {section.name} and says not which: give --checkpoint FILE, or `weights:` in the recipe."
        )
    if section.name == "user" and given.network is None:
        raise UsageError("the recipe is for a network of your own: give --network FILE:FUNCTION.")
    weights = None if section.weights == UNTRAINED else section.weights
    if weights is not None and Path(weights).suffix:
        weights = str(given.home / weights)
    network = given.network if section.name == "user" and given.network else section.name
    return import_checkpoint(
        weights, network, data.spec, trained_on=section.trained_on, user=given.user, seed=given.seed
    )
