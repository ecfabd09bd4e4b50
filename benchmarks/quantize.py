"""Record what each way to quantize costs: accuracy on the whole test set, seconds, and the time that comes out.

    python benchmarks/quantize.py make --networks resnet20 resnet56 --weights FOLDER --data npz:cifar10.npz --keep rows
    python benchmarks/quantize.py make --checkpoint mobilenetv2.safetensors --data npz:cifar10.npz --keep rows
    python benchmarks/quantize.py record --keep rows

`FOLDER` holds resnet20_cifar10.safetensors and resnet56_cifar10.safetensors; the checkpoint is what the recipe
mobilenetv2-cifar10-train gave. `make` does the rows that `--keep` does not hold yet, and a training goes on where it
was; `--rows` takes those whose names start so. `record` times the rows of a network against each other in one
interleaved run, unless that is done, on a quiet machine, and writes `reports/quantize.json` and `.md`. Settings are
fixed beforehand, the last epoch counts, and the test images are looked at once by each row.
"""

import argparse
import dataclasses
import importlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quantize_peers import BATCH, IMAGES, peers

from compress import checkpoint, document, pipeline, recipe, storage
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.data.load import load
from compress.data.splits import Data
from compress.environment import environment
from compress.evaluate import on_test
from compress.export.onnx import export
from compress.fold.step import Fold
from compress.importing import import_checkpoint
from compress.interleave import Effort, interleave
from compress.interval import latency_interval
from compress.pipeline import Resources
from compress.quantize.equalize import pairs
from compress.quantize.qat_step import PrepareQAT
from compress.quantize.sequence import trace
from compress.quantize.step import Quantize
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.torch import TorchSession

ROOT = Path(__file__).parents[1]
NETWORKS = ("resnet20", "resnet56", "mobilenetv2_half")
FURTHEST = 6
REPAIRS = ("equalize", "adaround", "bias_correction")
OBSERVERS = ("min-max", "moving-average", "percentile", "mse", "entropy")
W4 = {"target": "torch", "weight_bits": 4}
W8 = {"target": "torch", "weight_scales": "tensor"}

OURS: dict[str, dict[str, Any]] = (
    {f"observer {name}": {"observer": name} for name in OBSERVERS}
    | {f"min-max + {name}": {name: True} for name in REPAIRS}
    | {"min-max + equalize + bias_correction": {"equalize": True, "bias_correction": True}}
    | {"one scale for a weight": W8}
    | {"W4A8, nearest": W4}
    | {f"W4A8 + {name}": W4 | {name: True} for name in REPAIRS}
    | {"W4A8 + adaround + bias_correction": W4 | {"adaround": True, "bias_correction": True}}
)
"""The rows of the network as it is: what they are called, and the settings."""
HARD: dict[str, dict[str, Any]] = {
    "rescaled, one scale for a weight": W8,
    "rescaled, one scale for a weight + equalize": W8 | {"equalize": True},
    "rescaled, a scale for each channel": {},
    "rescaled, a scale for each channel + equalize": {"equalize": True},
}
"""The rows of the same function with its channels rescaled."""
AWARE: dict[str, dict[str, dict[str, Any]]] = {
    "resnet20": {"QAT INT8": {}, "QAT W4A8": W4, "QAT W4A8, learned steps": W4 | {"step_sizes": "learned"}},
    "mobilenetv2_half": {"QAT INT8": {}},
}
"""The rows that train, of each network: the settings of `prepare_qat`; the training is that of the shipped recipe."""
TRAINED, CONVERTED = ", as it was trained", ", converted"
"""What the rows are called beside that of the file: the same training, asked before and after it was made integers."""


def rescaled(folded: Checkpoint) -> Checkpoint:
    """The same function, channels between two convolutions rescaled in turn by powers of two up to 2^6, which is exact."""
    weights = {name: tensor.clone() for name, tensor in folded.weights.items()}
    found, _ = pairs(trace(build(folded), folded.architecture.input_shape))
    for number, pair in enumerate(found):
        channels = len(weights[pair.first])
        factor = 2.0 ** torch.linspace(0, FURTHEST, channels).round().roll(number)
        weights[pair.first] *= factor.reshape(-1, 1, 1, 1)
        if pair.bias is not None:
            weights[pair.bias] *= factor
        weights[pair.second] /= factor.reshape(1, -1, 1, 1)
    return dataclasses.replace(folded, weights=weights)


def aware(
    base: Checkpoint, data: Data, settings: dict[str, Any], folder: Path
) -> dict[str, Callable[[], tuple[bytes | None, Any, None]]]:
    """The rows of one training on integers, by what their names end in."""
    resources = Resources(data.learning)
    _, train, convert = recipe.read(recipe.find("resnet20-cifar10-qat")).sequence

    def trained() -> Checkpoint:
        return pipeline.run((PrepareQAT(**settings), train), base, resources, folder)

    def converted() -> Checkpoint:
        return pipeline.run((convert,), trained(), resources, folder, first=3)

    def simulated(made: Checkpoint) -> tuple[None, Any, None]:
        return None, TorchSession(build(made), made.architecture.input_shape), None

    def deployed() -> tuple[bytes, Any, None]:
        content = export(converted())
        return content, OnnxSession(content), None

    rows = {TRAINED: lambda: simulated(trained()), CONVERTED: lambda: simulated(converted())}
    return rows if settings.get("target") == "torch" else rows | {"": deployed}


def ours(folded: Checkpoint, data: Data, settings: dict[str, Any]) -> tuple[bytes | None, Any, float]:
    """ONNX bytes (None where torch simulates), a session, and the seconds quantizing took."""
    begun = time.perf_counter()
    result = Quantize(images=IMAGES, batch=BATCH, **settings)(folded, Resources(data.learning))
    seconds = time.perf_counter() - begun
    if settings.get("target") == "torch":
        return None, TorchSession(build(result), result.architecture.input_shape), seconds
    content = export(result)
    return content, OnnxSession(content), seconds


def accuracy(session: Any, data: Data, runtime: str) -> float:
    """Top-1 on the whole test set, in per cent."""
    return on_test(session, data, runtime=runtime).measurements[0].values[0]


class Rows:
    """The rows of one network, each a file that is made once."""

    def __init__(self, folder: Path, network: str, wanted: tuple[str, ...] = ("",)) -> None:
        self.folder, self.network, self.wanted = folder / network, network, wanted
        self.folder.mkdir(parents=True, exist_ok=True)

    def row(self, name: str, make: Callable[[], tuple[bytes | None, Any, float | None]], data: Data) -> None:
        """Quantize and evaluate, unless that is done or the row was not asked for."""
        path = self.path(name, ".json")
        if path.exists() or not name.startswith(self.wanted):
            return
        content, session, seconds = make()
        if content is not None:
            storage.write_bytes(self.path(name, ".onnx"), content)
        top1 = accuracy(session, data, "onnxruntime" if content is not None else "torch")
        found = {"name": name, "top1": top1, "seconds": seconds, "runtime": "ONNX Runtime" if content else "torch"}
        storage.write_text(path, json.dumps(found) + "\n")
        print(f"{self.network}: {name}: {top1:.2f} %", flush=True)

    def times(self, names: list[str]) -> dict[str, Any]:
        """The files of some rows timed against the first in one interleaved run, unless that is done."""
        path = self.path("times", ".json")
        if path.exists():
            return json.loads(path.read_text())
        sessions = [OnnxSession(self.path(name, ".onnx").read_bytes()) for name in names]
        images = np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32), dtype=np.float32)
        runs = [lambda session=session: session(images) for session in sessions]
        timed = interleave(runs, Effort(seconds=120.0), np.random.default_rng(0), time.perf_counter_ns)
        rows = {}
        for number, name in enumerate(names):
            interval = latency_interval(timed.ratios(number)) if number else None
            rows[name] = {
                "seconds": statistics.median(timed.series[number].samples),
                "ratio": statistics.median(timed.ratios(number)),
                "interval": [interval.low, interval.high] if interval else [1.0, 1.0],
            }
        storage.write_text(path, json.dumps(rows) + "\n")
        return rows

    def path(self, name: str, ending: str) -> Path:
        """Where a row is kept."""
        return self.folder / ("".join(letter if letter.isalnum() else "_" for letter in name) + ending)

    def read(self) -> dict[str, Any]:
        """All that was measured, in the order of the tables, and then the other tools."""
        found = {row["name"]: row for row in map(_read, self.folder.glob("*.json")) if "name" in row}
        aware = (name + ending for name in AWARE.get(self.network, {}) for ending in (TRAINED, CONVERTED, ""))
        own = [name for name in ("FP32", *OURS, *aware, *HARD) if name in found]
        others = sorted(found.keys() - {*own})
        times = self.times(["FP32", "observer min-max", *others])
        return {"network": self.network, "rows": [found[name] | {"time": times.get(name)} for name in (*own, *others)]}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def make(rows: Rows, base: Checkpoint, data: Data) -> None:
    """Every row of one network."""
    folded = Fold()(base)
    hard, source = rescaled(folded), export(folded)
    rows.row("FP32", lambda: (source, OnnxSession(source), 0.0), data)
    for name, settings in OURS.items():
        rows.row(name, lambda settings=settings: ours(folded, data, settings), data)
    for name, settings in HARD.items():
        rows.row(name, lambda settings=settings: ours(hard, data, settings), data)
    for name, other in peers(source, data).items():
        rows.row(name, lambda other=other: _timed(other), data)
    for name, settings in AWARE.get(rows.network, {}).items():
        for ending, row in aware(base, data, settings, rows.path(name, "")).items():
            rows.row(name + ending, row, data)


def _timed(make: Callable[[], bytes]) -> tuple[bytes, OnnxSession, float]:
    begun = time.perf_counter()
    content = make()
    seconds = time.perf_counter() - begun
    return content, OnnxSession(content), seconds


def markdown(found: dict[str, Any]) -> str:
    """The record as a table for each network."""
    lines = ["# Ways to quantize, on CIFAR-10", ""]
    lines += [
        f"On {found['environment']['cpu']}, one thread; made by `benchmarks/quantize.py`. Top-1 on the 10,000 test images in the",
        f"runtime named; seconds to quantize from {IMAGES} images; time over FP32 at batch {BATCH} in ONNX Runtime, with its 95 % interval.",
        "A row that torch simulates has no speed; seconds taken while the machine did other work are left out. The validation images were trained on by the residual networks' weights.",
        "QAT trains as the shipped recipe does, three epochs, and is asked before its conversion, after it, and as a file.",
        "`rescaled` is the same function exactly, channels between two convolutions rescaled by powers of two up to 2^6,",
        "where nothing but a ReLU lies between them.",
    ]
    for each in found["networks"]:
        exact = each["rows"][0]["top1"]
        lines += ["", f"## {each['network']}", "", "| | runtime | top-1 | lost | seconds | time over FP32 |"]
        lines.append("| --- | --- | --- | --- | --- | --- |")
        for row in each["rows"]:
            timed = row["time"]
            ratio = f"{timed['ratio']:.3f} ({timed['interval'][0]:.3f}-{timed['interval'][1]:.3f})" if timed else ""
            lost = f"{exact - row['top1']:+.2f}"
            seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
            lines.append(f"| {row['name']} | {row['runtime']} | {row['top1']:.2f} | {lost} | {seconds} | {ratio} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Make what is missing, or time it and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["make", "record"])
    parser.add_argument("--networks", nargs="*", default=[], choices=NETWORKS[:2])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="of another network, which is measured too")
    parser.add_argument("--data")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=[""], help="what the names of the rows to make start with")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.task == "make":
        for module in ("compress.quantize.draft", "onnxruntime.quantization"):
            importlib.import_module(module)  # the seconds of a row are those after imports
        data = load(asked.data)
        bases = [
            import_checkpoint(asked.weights / f"{name}_cifar10.safetensors", name, data.spec) for name in asked.networks
        ]
        for base in (*bases, *([checkpoint.load(asked.checkpoint)] if asked.checkpoint else [])):
            make(Rows(asked.keep, base.architecture.name, tuple(asked.rows)), base, data)
        return
    networks = [Rows(asked.keep, name).read() for name in NETWORKS if (asked.keep / name).exists()]
    found = {"networks": networks, "environment": document.plain(environment(1))}
    storage.write_text(ROOT / "reports" / "quantize.json", json.dumps(found, indent=1) + "\n")
    storage.write_text(ROOT / "reports" / "quantize.md", markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
