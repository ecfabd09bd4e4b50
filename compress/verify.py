"""What is made and measured of a run's checkpoints: files, parity of every hop, accuracy, time, memory."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compress import parity
from compress.architecture import Architecture
from compress.benchmark import benchmark
from compress.checkpoint import Checkpoint
from compress.evaluate import on_test
from compress.export import export, onnx_file
from compress.interleave import Effort
from compress.layers import layers
from compress.measured import shown
from compress.measurement import Curve, Entry, Hop, Recording
from compress.progress import Progress, Said
from compress.quantity import counted
from compress.recipe import Recipe
from compress.runtime.onnxruntime import OnnxSession
from compress.sensitivity import kept

if TYPE_CHECKING:
    from compress.data.splits import Data
    from compress.execute import Given
    from compress.runtime.session import Images, Session

RUNTIME = "onnxruntime"
IMAGES = 128
"""Images that parity is asked on."""
KINDS: dict[str, parity.Kind] = {
    "fold": "exact",
    "quantize": "changed",
    "prepare_qat": "changed",
    "convert_qat": "exact",
}
"""What the hop of a step claims; a step that is not here means to change the network's answers."""

Chain = Sequence[tuple[str, Checkpoint]]
"""Checkpoints by name in the order they were made, the baseline first."""


def verify(
    recipe: Recipe, folder: Path, chain: Chain, data: "Data", given: "Given", progress: Progress, said: Said
) -> Recording:
    """Export the baseline and what came of it, check every hop, and measure the files against each other.

    Raises CheckFailed where a hop's parity fails; nothing after it is measured.
    """
    images = shown(data, IMAGES)
    steps = _steps(chain, images, given)
    paths: dict[Path, Checkpoint] = {}
    ledgers: list[tuple[Hop, ...]] = []
    for name, checkpoint in deployed(chain):
        path = folder / f"{name}.{recipe.export.format}"
        export(checkpoint, path, recipe.export.format, given.user)
        way = steps[: next(place for place, (_, each) in enumerate(chain) if each is checkpoint) + 1]
        ledgers.append((*(hop for hop in way if hop), _written(path, checkpoint, images, given)))
        paths[path] = checkpoint
        said(f"{path.name}: parity holds over {counted(len(ledgers[-1]), 'hop')}")
    bench = recipe.benchmark
    baseline, *candidates = paths
    timed = benchmark(
        baseline,
        candidates,
        RUNTIME,
        batches=bench.batches,
        threads=bench.threads,
        network=given.network,
        effort=Effort(seconds=bench.seconds),
        images=images,
        progress=progress,
    )
    return Recording(
        tuple(
            _complete(
                dataclasses.replace(entry, parity=hops), path, paths[path], chain[0][1], data, recipe, given, progress
            )
            for entry, hops, path in zip(timed.entries, ledgers, paths, strict=True)
        )
    )


def deployed(chain: Chain) -> Chain:
    """Which of a run's checkpoints become files: the baseline, the last one, and the last in floating point before it.

    The one in floating point shows what pruning alone gives; where nothing was pruned it is the baseline again.
    """
    (_, baseline), (_, last) = chain[0], chain[-1]
    pruned = [
        (name, checkpoint)
        for name, checkpoint in chain[1:-1]
        if checkpoint.architecture.quantization is None
        and checkpoint.architecture.prepared is None
        and _size(checkpoint.architecture) != _size(baseline.architecture)
    ]
    between = pruned[-1:] if last.architecture.quantization else []
    return [("baseline", baseline), *between, *chain[1:][-1:]]


def _size(architecture: Architecture) -> tuple[object, ...]:
    """What pruning changes of an architecture."""
    return architecture.removed, architecture.widths


def _steps(chain: Chain, images: "Images", given: "Given") -> list[Hop | None]:
    """The hop into each checkpoint from the one before it, required to hold; None where a step means to change the answers."""
    hops: list[Hop | None] = [None]
    for (_, before), (name, after) in itertools.pairwise(chain):
        kind = KINDS.get(after.history[-1].step)
        hops.append(_hop(name, _session(before, given), _session(after, given), images, kind) if kind else None)
    return hops


def _written(path: Path, checkpoint: Checkpoint, images: "Images", given: "Given") -> Hop:
    """The hop from a checkpoint to its file, run as it is written: integers with the runtime's own rewriting off."""
    integer = checkpoint.architecture.quantization is not None
    file = OnnxSession(onnx_file.read(path), optimise=not integer, what=str(path))
    return _hop(path.name, _session(checkpoint, given), file, images, "integer" if integer else "exact")


def _hop(name: str, before: "Session", after: "Session", images: "Images", kind: parity.Kind) -> Hop:
    return parity.require(parity.compare(name, before, after, images, kind))


def _session(checkpoint: Checkpoint, given: "Given") -> "Session":
    from compress.build import build
    from compress.runtime.torch import TorchSession

    return TorchSession(build(checkpoint, given.user), checkpoint.architecture.input_shape)


def _complete(
    entry: Entry,
    path: Path,
    checkpoint: Checkpoint,
    baseline: Checkpoint,
    data: "Data",
    recipe: Recipe,
    given: "Given",
    progress: Progress,
) -> Entry:
    """The entry with its accuracy, its layers, and what its history has to say that the baseline's has not."""
    content = onnx_file.read(path)
    session = OnnxSession(content, threads=recipe.benchmark.threads, what=str(path))
    accuracy = on_test(session, data, runtime=RUNTIME, batch=recipe.evaluate.batch, progress=progress)
    session.close()
    own = checkpoint.history if checkpoint is baseline else checkpoint.history[len(baseline.history) :]
    notes = [f"{record.step}: {note}" for record in own for note in record.notes]
    left = [
        f"{record.step} left {refusal.layer} alone: {refusal.reason}" for record in own for refusal in record.refusals
    ]
    return dataclasses.replace(
        entry,
        measurements=(*entry.measurements, *accuracy.measurements),
        layers=layers(checkpoint, given.user),
        notes=(*entry.notes, *notes, *left),
        correct=accuracy.correct,
        sensitivities=entry.sensitivities
        or (kept(given.checkpoint.parent, entry.subject.fingerprint) if given.checkpoint else ()),
        curves=tuple(
            Curve(record.step, record.figures, seen=checkpoint.trained_on == "all")
            for record in checkpoint.history
            if "train_loss" in record.figures  # other steps' figures are no curves
        ),
    )
