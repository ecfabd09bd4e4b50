"""Record what each way to quantize costs: accuracy on the whole test set, seconds, and the time that comes out.

    python benchmarks/quantize.py --weights FOLDER --data npz:cifar10.npz --keep rows

`FOLDER` holds resnet20_cifar10.safetensors and resnet56_cifar10.safetensors. Every row is written to `--keep` when it
is done, and found there by the next run. Writes `reports/quantize.json` and `reports/quantize.md`. Run it on a quiet
machine: all rows of a network are timed against each other in one interleaved run.
"""

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress import document, storage
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.data.load import load
from compress.data.normalise import normalise
from compress.data.splits import Data
from compress.environment import environment
from compress.evaluate import on_test
from compress.export.onnx import export
from compress.fold.step import Fold
from compress.importing import import_checkpoint
from compress.interleave import Effort, interleave
from compress.interval import ratio_interval
from compress.pipeline import Resources
from compress.quantize.equalize import pairs
from compress.quantize.sequence import trace
from compress.quantize.step import Quantize
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.torch import TorchSession

ROOT = Path(__file__).parents[1]
IMAGES, BATCH, FURTHEST = 512, 64, 6
REPAIRS = ("equalize", "adaround", "bias_correction")
OBSERVERS = ("min-max", "moving-average", "percentile", "mse", "entropy")
W4 = {"target": "torch", "weight_bits": 4}
W8 = {"target": "torch", "weight_scales": "tensor"}

OURS: dict[str, dict[str, Any]] = (
    {f"observer {name}": {"observer": name} for name in OBSERVERS}
    | {f"min-max + {name}": {name: True} for name in REPAIRS}
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


def ours(folded: Checkpoint, data: Data, settings: dict[str, Any]) -> tuple[bytes | None, Any, float]:
    """ONNX bytes (None where torch simulates), a session, and the seconds quantizing took."""
    begun = time.perf_counter()
    result = Quantize(images=IMAGES, batch=BATCH, **settings)(folded, Resources(data.learning))
    seconds = time.perf_counter() - begun
    if settings.get("target") == "torch":
        return None, TorchSession(build(result), result.architecture.input_shape), seconds
    content = export(result)
    return content, OnnxSession(content), seconds


def calibration(data: Data) -> Iterator[np.ndarray]:
    """The same images, for the other tools."""
    for pixels, _ in data.learning.calibration.batches(BATCH, np.arange(IMAGES)):
        yield normalise(pixels, data.spec.preprocessing).numpy()


def onnxruntime_static(source: bytes, data: Data, per_channel: bool) -> bytes:
    """onnxruntime's own quantizer: as it comes, or with uint8 activations and a scale for each channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = calibration(data)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"images": batch} for batch in self.batches), None)

    chosen = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        given, prepared, made = (Path(temporary) / f"{name}.onnx" for name in ("given", "prepared", "made"))
        given.write_bytes(source)
        quant_pre_process(str(given), str(prepared))
        quantize_static(str(prepared), str(made), Reader(), **(chosen if per_channel else {}))
        return made.read_bytes()


def nncf(source: bytes, data: Data) -> bytes:
    """NNCF's post-training quantization of the same ONNX file."""
    import nncf as peer
    import onnx

    batches = [{"images": batch} for batch in calibration(data)]
    made = peer.quantize(onnx.load_model_from_string(source), peer.Dataset(batches), subset_size=IMAGES // BATCH)
    return bytes(made.SerializeToString())


def peers(source: bytes, data: Data) -> dict[str, Callable[[], bytes]]:
    """The other tools that are installed."""
    found: dict[str, Callable[[], bytes]] = {
        "onnxruntime quantize_static, defaults": lambda: onnxruntime_static(source, data, per_channel=False),
        "onnxruntime quantize_static, per channel, uint8": lambda: onnxruntime_static(source, data, per_channel=True),
    }
    with contextlib.suppress(ImportError):
        import nncf as peer

        found[f"NNCF {peer.__version__}"] = lambda: nncf(source, data)
    return found


def accuracy(session: Any, data: Data, runtime: str) -> float:
    """Top-1 on the whole test set, in per cent."""
    return on_test(session, data, runtime=runtime).measurements[0].values[0]


class Rows:
    """The rows of one network, each a file that is made once."""

    def __init__(self, folder: Path, network: str) -> None:
        self.folder, self.network = folder / network, network
        self.folder.mkdir(parents=True, exist_ok=True)

    def row(self, name: str, make: Callable[[], tuple[bytes | None, Any, float]], data: Data) -> None:
        """Quantize and evaluate, unless that is done."""
        path = self.path(name, ".json")
        if path.exists():
            return
        content, session, seconds = make()
        if content is not None:
            storage.write_bytes(self.path(name, ".onnx"), content)
        top1 = accuracy(session, data, "onnxruntime" if content is not None else "torch")
        found = {"name": name, "top1": top1, "seconds": seconds, "runtime": "ONNX Runtime" if content else "torch"}
        storage.write_text(path, json.dumps(found) + "\n")
        print(f"{self.network}: {name}: {top1:.2f} % in {seconds:.1f} s", flush=True)

    def times(self, names: list[str]) -> None:
        """Time the files of some rows against the first in one interleaved run, unless that is done."""
        path = self.path("times", ".json")
        if path.exists():
            return
        sessions = [OnnxSession(self.path(name, ".onnx").read_bytes()) for name in names]
        images = np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32), dtype=np.float32)
        runs = [lambda session=session: session(images) for session in sessions]
        timed = interleave(runs, Effort(seconds=120.0), np.random.default_rng(0), time.perf_counter_ns)
        rows = {}
        for number, name in enumerate(names):
            interval = ratio_interval(timed.ratios(number)) if number else None
            rows[name] = {
                "seconds": statistics.median(timed.series[number].samples),
                "ratio": statistics.median(timed.ratios(number)),
                "interval": [interval.low, interval.high] if interval else [1.0, 1.0],
            }
        storage.write_text(path, json.dumps(rows) + "\n")

    def path(self, name: str, ending: str) -> Path:
        """Where a row is kept."""
        return self.folder / ("".join(letter if letter.isalnum() else "_" for letter in name) + ending)

    def read(self, names: list[str]) -> dict[str, Any]:
        """All that was measured."""
        times = json.loads(self.path("times", ".json").read_text())
        rows = [json.loads(self.path(name, ".json").read_text()) for name in names]
        return {"network": self.network, "rows": [row | {"time": times.get(row["name"])} for row in rows]}


def measure(network: str, weights: Path, data: Data, keep: Path) -> dict[str, Any]:
    """Every row of one network."""
    folded = Fold()(import_checkpoint(weights / f"{network}_cifar10.safetensors", network, data.spec))
    hard, source, rows = rescaled(folded), export(folded), Rows(keep, network)
    rows.row("FP32", lambda: (source, OnnxSession(source), 0.0), data)
    for name, settings in OURS.items():
        rows.row(name, lambda settings=settings: ours(folded, data, settings), data)
    for name, settings in HARD.items():
        rows.row(name, lambda settings=settings: ours(hard, data, settings), data)
    others = peers(source, data)
    for name, make in others.items():
        rows.row(name, lambda make=make: _timed(make), data)
    rows.times(["FP32", "observer min-max", *others])
    return rows.read(["FP32", *OURS, *HARD, *others])


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
        "A row that torch simulates has no speed. The weights' validation images were trained on.",
    ]
    for each in found["networks"]:
        exact = each["rows"][0]["top1"]
        lines += ["", f"## {each['network']}", "", "| | runtime | top-1 | lost | seconds | time over FP32 |"]
        lines.append("| --- | --- | --- | --- | --- | --- |")
        for row in each["rows"]:
            timed = row["time"]
            ratio = f"{timed['ratio']:.3f} ({timed['interval'][0]:.3f}-{timed['interval'][1]:.3f})" if timed else ""
            lost = f"{exact - row['top1']:+.2f}"
            lines.append(
                f"| {row['name']} | {row['runtime']} | {row['top1']:.2f} | {lost} | {row['seconds']:.1f} | {ratio} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure what is missing and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet56"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for module in ("compress.quantize.draft", "onnxruntime.quantization"):
        importlib.import_module(module)  # the seconds of a row are those after imports
    data = load(asked.data)
    networks = [measure(network, asked.weights, data, asked.keep) for network in asked.networks]
    found = {"networks": networks, "environment": document.plain(environment(1))}
    storage.write_text(ROOT / "reports" / "quantize.json", json.dumps(found, indent=1) + "\n")
    storage.write_text(ROOT / "reports" / "quantize.md", markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
