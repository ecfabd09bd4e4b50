"""Train what takes long and record what came of it: recovery after pruning, and what each kind of pruning costs.

    python benchmarks/trainings.py train recovery --weights WEIGHTS_FOLDER --data npz:cifar10.npz --keep FOLDER
    python benchmarks/trainings.py record recovery --weights WEIGHTS_FOLDER --data npz:cifar10.npz --keep FOLDER

`train` does the rows of a table that FOLDER does not hold yet, and after a kill goes on where it was; `--rows`
takes some of them, so that two processes can share a table. `record` measures the files of all rows that are
done in one interleaved run, on a quiet machine, and writes `reports/TABLE.json` and `.md`; a row recorded before
that FOLDER no longer holds stays as it was. Settings are fixed beforehand, the last epoch counts, and the test
images are looked at once, by the file in ONNX Runtime.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from compress import checkpoint, document, pipeline, storage
from compress.benchmark import benchmark
from compress.build import build, structure
from compress.checkpoint import Checkpoint
from compress.data.load import load
from compress.data.splits import Data
from compress.device import use
from compress.environment import environment
from compress.evaluate import on_test
from compress.export import export
from compress.fold.step import Fold
from compress.importing import import_checkpoint
from compress.interleave import Effort
from compress.interval import Interval, latency_interval
from compress.macs import macs
from compress.measurement import Entry
from compress.pipeline import Resources, Step
from compress.prune.sparsify import Sparsify
from compress.prune.step import Prune
from compress.quantize.step import Quantize
from compress.runtime.onnxruntime import open_onnx
from compress.runtime.session import Session
from compress.runtime.torch import TorchSession
from compress.sparsity import sparsity
from compress.train.step import Train

ROOT = Path(__file__).parents[1]
RUNTIME = "onnxruntime"
PRECISIONS = ("fp32", "int8")
TIMED = {RUNTIME: PRECISIONS, "openvino": ("fp32", "int8-openvino")}
"""The files of a row that each runtime is timed with; its INT8 has the integers where that runtime wants them."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A network and what is done to it; `afresh` trains the pruned shape from random weights, as a control."""

    label: str
    network: str
    steps: tuple[Step, ...]
    afresh: bool = False

    @property
    def folder(self) -> str:
        """A name for its files."""
        return self.network + "-" + "".join(letter if letter.isalnum() else "-" for letter in self.label)


def _recovery() -> tuple[Row, ...]:
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "label smoothing": {"label_smoothing": 0.1},
        "distillation": {"distillation": 0.9},
        "distillation and EMA": {"distillation": 0.9, "averaging": "ema"},
    }
    return tuple(
        Row(
            f"{name}, {epochs} epoch{'s' * (epochs > 1)}",
            "resnet20",
            (Prune(macs=0.5), Train(epochs=epochs, precision="bf16", **way)),
        )
        for epochs in (1, 3, 10)
        for name, way in ways.items()
    )


def _pruning() -> tuple[Row, ...]:
    def learnt(epochs: int = 10, **settings: Any) -> Train:
        return Train(epochs=epochs, precision="bf16", distillation=0.9, averaging="ema", **settings)

    def halves(epochs: int) -> Sparsify:
        training = Train(precision="bf16", distillation=0.9, rate=0.02)
        return Sparsify(structure="2:4", epochs=epochs, training=training)

    def thin(share: float, epochs: int) -> Sparsify:
        training = Train(precision="bf16", distillation=0.9)
        return Sparsify(sparsity=share, schedule="cubic", epochs=epochs, training=training)

    half = Prune(macs=0.5)
    return (
        Row("channels, 2.0x fewer MACs", "resnet20", (half, learnt())),
        Row("channels, 2.0x fewer MACs, batches of 64", "resnet20", (half, learnt(batch=64))),
        Row(
            "channels, 2.0x fewer MACs, reconstructed",
            "resnet20",
            (Prune(macs=0.5, reconstruct=True), learnt(rate=0.015)),
        ),
        Row("the same shape from random weights", "resnet20", (half, learnt(rate=0.1)), afresh=True),
        Row("channels, 1.37x fewer MACs", "resnet20", (Prune(macs=1 / 1.37), learnt())),
        Row("80 % zeros, cubic", "resnet20", (thin(0.8, 10),)),
        Row("2:4", "resnet20", (halves(5),)),
        Row("2:4", "resnet56", (halves(3),)),
        Row("blocks, 0.55 of the MACs", "resnet56", (Prune(structure="blocks", macs=0.55), learnt())),
        Row(
            "blocks and channels, half the MACs",
            "resnet56",
            (Prune(structure="blocks", macs=0.62), Prune(macs=0.82, round_to=16), learnt()),
        ),
        Row(
            "blocks and channels, 2.1x fewer MACs, 30 epochs",
            "resnet56",
            (Prune(structure="blocks", macs=0.55), Prune(macs=0.87, round_to=16, reconstruct=True), learnt(30)),
        ),
        Row("channels, 2.13x fewer MACs", "resnet56", (Prune(macs=1 / 2.13, reconstruct=True), learnt(rate=0.01))),
        Row("channels, 2.57x fewer MACs", "resnet56", (Prune(macs=1 / 2.57, reconstruct=True), learnt(rate=0.01))),
    )


TABLES = {"recovery": _recovery, "pruning": _pruning}
TITLES = {
    "recovery": "Half the MACs of a ResNet-20 removed, and what training wins back",
    "pruning": "What each kind of pruning costs, on CIFAR-10",
}


def main() -> None:
    """Train, or measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["train", "record"])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        help="folder with resnet20_cifar10.safetensors and resnet56_cifar10.safetensors",
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="*", help="their numbers, from 0")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    use("cpu", asked.threads)
    data, rows = load(asked.data), TABLES[asked.table]()
    if asked.task == "train":
        for number in asked.rows if asked.rows is not None else range(len(rows)):
            done = train(rows[number], asked, data)
            print(
                f"{rows[number].network} {rows[number].label}: {done['fp32']:.2f} %, INT8 {done['int8']:.2f} %",
                flush=True,
            )
    else:
        found = [(row, asked.keep / row.folder) for row in rows if (asked.keep / row.folder / "row.json").exists()]
        record(asked.table, found, asked, data)


def start(name: str, asked: argparse.Namespace, data: Data) -> Checkpoint:
    """The trained network of a name."""
    return import_checkpoint(asked.weights / f"{name}_cifar10.safetensors", name, data.spec)


def train(row: Row, asked: argparse.Namespace, data: Data) -> dict[str, Any]:
    """Do a row, unless that is done, and ask the test images once of each of its files."""
    folder = asked.keep / row.folder
    kept = folder / "row.json"
    if kept.exists():
        return json.loads(kept.read_text())
    base = start(row.network, asked, data)
    resources = Resources(data.learning, teacher=base)
    begun, shaping = time.monotonic(), max(1, len(row.steps) - 1)  # a row of one step shapes and trains at once
    storage.folder(folder)
    shaped = pipeline.run(row.steps[:shaping], base, resources, folder)
    if row.afresh:
        shaped = dataclasses.replace(shaped, weights=structure(shaped.architecture).state_dict())
    made = pipeline.run(row.steps[shaping:], shaped, resources, folder, first=1 + shaping)
    seconds = time.monotonic() - begun
    folded = Fold()(made, resources)
    files = {"fp32": folded, "int8": Quantize()(folded, resources)}
    for precision, each in files.items():
        export(each, folder / f"{precision}.onnx")
    whole, left = (macs(structure(each.architecture), each.architecture.input_shape) for each in (base, made))
    found = {
        "network": row.network,
        "label": row.label,
        "macs": left / whole,
        "zeros": sparsity(made.weights),
        "before": top1(
            TorchSession(build(shaped), shaped.architecture.input_shape, threads=asked.threads), data, "torch"
        ),
        **{precision: deployed(folder / f"{precision}.onnx", asked, data) for precision in files},
        "seconds": seconds,
        "settings": [record.settings for record in made.history[-len(row.steps) :]],
        "fingerprint": made.fingerprint,
    }
    storage.write_text(kept, json.dumps(found, indent=1) + "\n")
    return found


def top1(session: Session, data: Data, runtime: str) -> float:
    """Per cent of the test images answered right."""
    return on_test(session, data, runtime=runtime).measurements[0].median


def deployed(path: Path, asked: argparse.Namespace, data: Data) -> float:
    """The same of a file in ONNX Runtime."""
    return top1(open_onnx(path, threads=asked.threads), data, RUNTIME)


def record(table: str, rows: list[tuple[Row, Path]], asked: argparse.Namespace, data: Data) -> None:
    """Time each row's files against the network it came from, and write the table with what it held before."""
    path = ROOT / "reports" / f"{table}.json"
    before = json.loads(path.read_text()) if path.exists() else {"rows": [], "dense": {}}
    now = document.plain(environment(1))
    dense, found = (
        before["dense"],
        {(row["network"], row["label"]): {"environment": before["environment"]} | row for row in before["rows"]},
    )
    for network in dict.fromkeys(row.network for row, _ in rows):
        source = asked.keep / f"{network}.onnx"
        if not source.exists():
            export(Fold()(start(network, asked, data)), source)
        dense[network] = {"top1": deployed(source, asked, data), "bytes": source.stat().st_size}
        own = [folder for row, folder in rows if row.network == network]
        for folder in own:
            _for_openvino(folder, data)
        ratios = {
            runtime: _ratios(source, [folder / f"{name}.onnx" for folder in own for name in names], runtime)
            for runtime, names in TIMED.items()
        }
        for folder in own:
            each = json.loads((folder / "row.json").read_text())
            each["latency_ratio"] = {
                runtime: {name: ratios[runtime][folder / f"{name}.onnx"] for name in names}
                for runtime, names in TIMED.items()
            }
            each["bytes"] = {name: (folder / f"{name}.onnx").stat().st_size for name in PRECISIONS}
            found[network, each["label"]] = each | {"environment": now}
    ordered = [found[key] for row in TABLES[table]() if (key := (row.network, row.label)) in found]
    made = {"title": TITLES[table], "dense": dense, "rows": ordered, "environment": now}
    storage.write_text(path, json.dumps(made, indent=1) + "\n")
    storage.write_text(path.with_suffix(".md"), markdown(made))
    print(markdown(made))


def _for_openvino(folder: Path, data: Data) -> None:
    """Make a row's INT8 file for OpenVINO, unless it is there."""
    path = folder / "int8-openvino.onnx"
    if not path.exists():
        resources = Resources(data.learning)
        made = Fold()(checkpoint.load(max(folder.glob("[0-9][0-9]-*.safetensors"))), resources)
        export(Quantize(target="openvino")(made, resources), path)


def _ratios(dense: Path, files: list[Path], runtime: str) -> dict[Path, Interval]:
    """Each file's time at batch 64 over that of the dense network, all in one interleaved run."""
    timed = benchmark(dense, files, runtime, batches=[64], threads=1, effort=Effort(seconds=4.0 * len(files)))
    return dict(zip(files, map(_ratio, timed.entries[1:]), strict=True))


def _ratio(entry: Entry) -> Interval:
    values = next(each.values for each in entry.measurements if each.metric == "latency_ratio")
    return latency_interval(values)


def markdown(made: dict[str, Any]) -> str:
    """The table, as a page."""
    lines = [
        f"# {made['title']}",
        "",
        f"On {made['environment']['cpu']}; made by `benchmarks/trainings.py`. Top-1 in per cent of all 10,000 test images, by the",
        "exported file in ONNX Runtime; `before` is the pruned network before any training. Times are of batch 64 on",
        "one thread, as a share of the dense network's in FP32 in the same runtime, taking turns with it, with 95 % intervals;",
        "ORT is ONNX Runtime, OV OpenVINO, whose INT8 file is one quantized for it. Sizes are of the files for ONNX Runtime.",
        "",
        "| | | MACs left | zeros | before | FP32 | INT8 | lost in INT8 | ORT, FP32 | ORT, INT8 | OV, FP32 | OV, INT8 | INT8 file | of dense FP32 | training |",
        "|" + " --- |" * 15,
    ]
    for name, each in made["dense"].items():
        lines.append(
            f"| {name} | dense | 1 | | | {each['top1']:.2f} | | | 1 | | 1 | | {each['bytes'] / 1e3:.0f} kB in FP32 | | |"
        )
    for row in made["rows"]:
        dense = made["dense"][row["network"]]
        lost, smaller = dense["top1"] - row["int8"], dense["bytes"] / row["bytes"]["int8"]
        cells = [row["network"], row["label"], f"{row['macs']:.3f}", f"{row['zeros']:.1f} %"]
        cells += [f"{row[name]:.2f}" for name in ("before", *PRECISIONS)] + [f"{lost:.2f}"]
        cells += [
            "{1:.3f} ({0:.3f} to {2:.3f})".format(*row["latency_ratio"][runtime][name])
            for runtime, names in TIMED.items()
            for name in names
        ]
        cells += [f"{row['bytes']['int8'] / 1e3:.0f} kB", f"1/{smaller:.1f}", f"{row['seconds'] / 60:.0f} min"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
