"""Removing in rounds, with training after each."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from compress import checkpoint as files
from compress import storage
from compress.checkpoint import Checkpoint, Record
from compress.device import is_first
from compress.errors import CompressError
from compress.pipeline import Change, Resources, keep, partial_of, steps_folder
from compress.quantity import counted
from compress.train.training import train

if TYPE_CHECKING:
    from compress.prune.step import Prune

Cut = Callable[[Checkpoint, float], Change]
"""A checkpoint without what is due when so much of the climb is done, from 0 to 1."""


def in_rounds(step: "Prune", checkpoint: Checkpoint, resources: Resources, cut: Cut) -> Change:
    """Remove a part, train for a part of the epochs, and so on; each round is a training of its own, its rate begun anew.

    A run that was killed goes on in the round it was in, from the file that the last finished one left.
    """
    rounds = 1 if step.schedule == "one-shot" else step.rounds
    folder = steps_folder(resources.partial) if resources.partial else None
    settings = {**step.model_dump(mode="json"), "seed": resources.seed}
    current, done = _found(folder, rounds, checkpoint, settings)
    curves: dict[str, list[float]] = defaultdict(list)
    for record in current.history[len(checkpoint.history) :]:
        for name, values in record.figures.items():
            curves[name] += values
    for number in range(done + 1, rounds + 1):
        change = cut(current, number / rounds)
        current = dataclasses.replace(current, architecture=change.architecture, weights=change.weights)
        epochs = step.epochs * number // rounds - step.epochs * (number - 1) // rounds
        training = step.training.model_copy(update={"epochs": epochs})
        path = _file(storage.folder(folder), number) if folder else None
        within = dataclasses.replace(resources, partial=partial_of(path) if path else None)
        trained = train(training, current, within, identity={"prune": settings, "round": number})
        for name, values in trained.figures.items():
            curves[name] += values
        figures = dict(trained.figures)
        record = Record("prune", {**settings, "round": number}, resources.seed, checkpoint.fingerprint, figures=figures)
        current = dataclasses.replace(current, weights=trained.weights, history=(*current.history, record))
        last = number == rounds  # the step's result, and what it would go on from stays until that is written
        if path and not last and is_first():
            keep(current, path)
    words = f"trained for {counted(step.epochs, 'epoch')}" + f", in {rounds} rounds" * (rounds > 1)
    return dataclasses.replace(
        change,
        weights=current.weights,
        notes=(*change.notes, words, *trained.notes[1:]),
        figures={name: tuple(values) for name, values in curves.items()},
    )


def another_run(path: Path) -> CompressError:
    """A file of an unfinished run was found that is not this one's."""
    return CompressError(
        f"{path} was left by another run. Give the same checkpoint and settings to go on with it, or remove {path.parent} to start again."
    )


def _file(folder: Path, number: int) -> Path:
    """Where a finished round is kept."""
    return folder / f"{number:02d}-round.safetensors"


def _found(
    folder: Path | None, rounds: int, checkpoint: Checkpoint, settings: dict[str, object]
) -> tuple[Checkpoint, int]:
    """The last finished round and its number, or the checkpoint itself and 0.

    Raises CompressError where another run left the file.
    """
    for number in range(rounds - 1, 0, -1):
        if folder is None or not (path := _file(folder, number)).exists():
            continue
        found = files.load(path)
        last = found.history[-1] if found.history else None
        if last is None or last.settings != {**settings, "round": number} or last.parent != checkpoint.fingerprint:
            raise another_run(path)
        return found, number
    return checkpoint, 0
