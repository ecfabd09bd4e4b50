"""Record what deploying costs beside others: `compress export` and bare `torch.onnx.export`; OpenVINO on our INT8 and on NNCF's.

    python benchmarks/deploy.py export --keep FOLDER
    PYTHONPATH=FOLDER_OF_NNCF python benchmarks/deploy.py openvino --keep FOLDER

`export` starts each in a process of its own, in turns. `openvino` times our INT8 file for that target, the one NNCF makes of OpenVINO's own
graph, where NNCF is installed, and FP32, in one interleaved run for each network and batch size; INT8 files that are in FOLDER are
not made again. Random weights, images of 224 pixels, one thread. Write `reports/export.*` and `reports/openvino.*`. Run them on a quiet machine.
"""

import argparse
import importlib.util
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families import blotches
from graphs import start

from compress import checkpoint, document, storage
from compress.data.normalise import normalise
from compress.device import use
from compress.environment import environment
from compress.export import export
from compress.export.onnx import OPSET
from compress.fold.step import Fold
from compress.importing import import_checkpoint
from compress.interleave import Effort, interleave
from compress.interval import latency_interval, ratio_interval
from compress.pipeline import Resources
from compress.quantize.step import Quantize
from compress.runtime import kernels
from compress.runtime.openvino import OpenvinoSession, library, open_openvino
from compress.runtime.session import Images

ROOT = Path(__file__).parents[1]
GOAL = 1.3
"""How many times the bare exporter's time ours may take."""
NETWORKS = ("resnet18", "mobilenet_v2", "resnet50")
BATCHES = (8, 1)
SIDES = ("fp32", "ours", "nncf")
IMAGES = 64

BARE = f"""
import sys
import torch
from torchvision.models import resnet50
network = resnet50()
network.load_state_dict(torch.load(sys.argv[1], weights_only=True))
torch.onnx.export(
    network.eval(), (torch.zeros(2, 3, 224, 224),), sys.argv[2], dynamo=True, external_data=False, opset_version={OPSET},
    dynamic_shapes=({{0: torch.export.Dim("batch")}},), verbose=False,
)
"""
"""What somebody without this package writes for the same file, from plain weights to ONNX."""


def main() -> None:
    """Measure one of the two, or make what is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["export", "openvino"])
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--repetitions", type=int, default=7, help="exports each way")
    parser.add_argument("--seconds", type=float, default=20.0, help="longest time for one batch size of one network")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "reports")
    asked = parser.parse_args()
    use("cpu", 1)
    storage.folder(asked.keep)
    found = exported(asked) if asked.task == "export" else timed(asked)
    found["environment"] = document.plain(environment(1))
    page = (export_page if asked.task == "export" else openvino_page)(found)
    storage.write_text(asked.output / f"{asked.task}.json", json.dumps(found, indent=1) + "\n")
    storage.write_text(asked.output / f"{asked.task}.md", page)
    print(page)


def exported(asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds from a process's start to its end, of both ways to export ResNet-50, in turns of random order."""
    base = import_checkpoint(None, "torchvision:resnet50", None, (3, 224, 224))
    checkpoint.save(base, asked.keep / "resnet50.safetensors")
    torch.save(base.weights, asked.keep / "resnet50.pth")
    words = {
        "bare": ["-c", BARE, str(asked.keep / "resnet50.pth"), str(asked.keep / "bare.onnx")],
        "ours": [
            "-m",
            "compress",
            "export",
            str(asked.keep / "resnet50.safetensors"),
            "-o",
            str(asked.keep / "ours.onnx"),
        ],
    }
    seconds: dict[str, list[float]] = {way: [] for way in words}
    order = np.random.default_rng(0)
    for turn in range(1 + asked.repetitions):
        for way in order.permutation(list(words)):
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *words[way]], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
            )
            taken = time.perf_counter() - begun
            if done.returncode:
                sys.exit(f"{way}: {done.stderr}")
            if turn:  # the first of each brings files into memory
                seconds[way].append(taken)
                print(f"{way}: {taken:.1f} s", flush=True)
    return {"goal": GOAL, "seconds": seconds}


def export_page(found: dict[str, Any]) -> str:
    """The medians and their ratio."""
    ours, bare = found["seconds"]["ours"], found["seconds"]["bare"]
    low, median, high = ratio_interval([one / other for one, other in zip(ours, bare, strict=True)])
    between = f" ({low:.2f} to {high:.2f})" if math.isfinite(high) else ""  # fewer than six runs have no interval
    rows = [
        f"| {name} | {statistics.median(each):.2f} | {min(each):.2f} | {max(each):.2f} |"
        for name, each in (("`torch.onnx.export`", bare), ("`compress export`", ours))
    ]
    return "\n".join([
        "# What an export costs", "",
        f"ResNet-50 at 224 pixels, from a file of weights to an ONNX file of opset {OPSET} with a free batch size, on {found['environment']['cpu']},",
        f"one thread; made by `benchmarks/deploy.py`. Seconds from a process's start to its end, {len(ours)} of each, in turns.", "",
        "| | median, s | fastest | slowest |", "| --- | --- | --- | --- |", *rows, "",
        f"Ours over the bare exporter's: {median:.2f}{between}; goal: at most {found['goal']}.", "",
    ])  # fmt: skip


def files(network: str, sides: tuple[str, ...], keep: Path) -> dict[str, Path]:
    """The files of a network, those missing made from the same calibration images."""
    found = {side: keep / f"{network}-{side}.xml" for side in sides}
    if all(path.exists() for path in found.values()):
        return found
    data = blotches(keep, 224)
    folded = Fold()(start(f"torchvision:{network}", None, data))
    export(folded, found["fp32"], "openvino")
    made = Quantize(target="openvino", images=IMAGES, batch=8)(folded, Resources(data.learning))
    export(made, found["ours"], "openvino")
    if "nncf" in found:
        pixels, _ = next(data.learning.calibration.batches(IMAGES))
        nncf(found["fp32"], normalise(pixels, data.spec.preprocessing).numpy(), found["nncf"])
    return found


def nncf(source: Path, images: Images, path: Path) -> None:
    """What NNCF makes of an FP32 file of OpenVINO, with its own settings."""
    openvino = library()
    import nncf as peer

    made = peer.quantize(
        openvino.Core().read_model(source), peer.Dataset(np.split(images, len(images))), subset_size=len(images)
    )
    openvino.save_model(made, path, compress_to_fp16=False)


def timed(asked: argparse.Namespace) -> dict[str, Any]:
    """Every network's files in turns at each batch size: times, and the ratio of ours to FP32 and to NNCF's."""
    installed = importlib.util.find_spec("nncf") is not None
    sides = SIDES if installed else tuple(side for side in SIDES if side != "nncf")
    rows = []
    for network, batch in itertools.product(asked.networks, BATCHES):
        sessions = {side: open_openvino(path) for side, path in files(network, sides, asked.keep).items()}
        images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)
        runs = [partial(session, images) for session in sessions.values()]
        effort = Effort(precision=0.005, seconds=asked.seconds)
        times = interleave(runs, effort, np.random.default_rng(0), time.perf_counter_ns)
        samples = {side: series.samples for side, series in zip(sessions, times.series, strict=True)}
        rows.append({
            "network": network, "batch": batch, "samples": samples, "noise": times.noise,
            "integers": {side: integers(session, images) for side, session in sessions.items()},
        })  # fmt: skip
        print(network, batch, {side: statistics.median(each) for side, each in samples.items()}, flush=True)
    return {"nncf": metadata.version("nncf") if installed else None, "rows": rows}


def integers(session: OpenvinoSession, images: Images) -> tuple[int, int]:
    """How many of the kernels that multiply compute on integers, and how many there are."""
    kinds = [node.provider for node in session.node_seconds(images) if kernels.MULTIPLIES.search(node.operator)]
    return sum(kind.lower().endswith("i8") for kind in kinds), len(kinds)


def openvino_page(found: dict[str, Any]) -> str:
    """Times and ratios as a table, NNCF's empty where it was not there."""
    version = found["environment"]["versions"]["openvino"]
    peer = f"NNCF {found['nncf']}" if found["nncf"] else "NNCF, which is not installed here and was skipped"
    lines = [
        "# INT8 in OpenVINO: our file beside NNCF's", "",
        f"OpenVINO {version} on {found['environment']['cpu']}, one thread, random weights, 224 pixels; made by `benchmarks/deploy.py`. Ours is quantized for the",
        f"target openvino, the other by {peer}, both from the same {IMAGES} images. Median times in milliseconds; ratios of",
        "one interleaved run, with 95 % intervals; kernels that multiply and compute on integers. Goal: ours never slower.", "",
        "| network | batch | FP32 | ours | NNCF | ours over FP32 | ours over NNCF | integer kernels, ours | NNCF |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in found["rows"]:
        times = [
            f"{1e3 * statistics.median(row['samples'][side]):.2f}" if side in row["samples"] else "" for side in SIDES
        ]
        ratios = [_ratio(row["samples"], other) for other in ("fp32", "nncf")]
        counts = [
            "{} of {}".format(*row["integers"][side]) if side in row["integers"] else "" for side in ("ours", "nncf")
        ]
        lines.append(f"| {' | '.join([row['network'], str(row['batch']), *times, *ratios, *counts])} |")
    return "\n".join([*lines, ""])


def _ratio(samples: dict[str, Any], other: str) -> str:
    if other not in samples:
        return ""
    low, median, high = latency_interval(
        [one / base for one, base in zip(samples["ours"], samples[other], strict=True)]
    )
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
