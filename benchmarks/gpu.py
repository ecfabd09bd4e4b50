"""Record what a GPU makes of the ways to run a network, dense and pruned to half its MACs.

    python benchmarks/gpu.py --weights FOLDER --data npz:cifar10.npz

ResNet-20 and ResNet-56 at 32 px, ResNet-50 and MobileNetV2 at 224 px, at batch 1 and a saturating one; FP32 with TF32 off, TF32, FP16 and
BF16, each eager, as a CUDA graph and compiled. Everything is timed against eager FP32 of the dense network in one interleaved run; compiling takes
longest and comes last, and what the minutes do not allow is recorded as skipped. Without `--weights` and `--data` the accuracies are skipped. Writes
`reports/gpu-NETWORK.json` and `reports/gpu.md` in under eight minutes; without a GPU, `reports/gpu-skipped.json`, which is no pass.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compress import document, pipeline, storage
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.environment import environment
from compress.errors import CompressError
from compress.evaluate import on_test
from compress.importing import import_checkpoint
from compress.interleave import Effort, interleave
from compress.interval import latency_interval
from compress.macs import macs
from compress.prune.step import Prune
from compress.runtime.session import Images
from compress.runtime.torch import TorchSession
from compress.runtime.torch_variant import variant

if TYPE_CHECKING:
    from compress.data.splits import Data

ROOT = Path(__file__).parents[1]
MINUTES = 7.5
EFFORT = Effort(precision=0.02, seconds=6.0, rounds=12)
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
OUT_OF_TIME = "the minutes given were over"
SKIPPED = "gpu-skipped.json"


@dataclass(frozen=True)
class Case:
    """A network, the size of its images, a batch that saturates a large GPU, and the file of its trained weights."""

    network: str
    pixels: int
    batch: int
    weights: str | None = None

    @property
    def name(self) -> str:
        """The network without where it comes from."""
        return self.network.rpartition(":")[2]


CASES = (
    Case("resnet20", 32, 1024, "resnet20_cifar10.safetensors"),
    Case("resnet56", 32, 1024, "resnet56_cifar10.safetensors"),
    Case("torchvision:resnet50", 224, 64),
    Case("torchvision:mobilenet_v2", 224, 64),
)


@dataclass(frozen=True)
class Side:
    """One structure run one way; the first of a comparison is the dense network in eager FP32."""

    structure: str
    way: str
    checkpoint: Checkpoint

    def open(self, device: str) -> TorchSession:
        """Its session; raises CompressError where the machine cannot run it."""
        network = build(self.checkpoint)
        return TorchSession(network, self.checkpoint.architecture.input_shape, device=device, way=variant(self.way))


def structures(case: Case, folder: Path | None) -> dict[str, Checkpoint]:
    """The dense network and half of it; the half is not trained, so its accuracy says nothing and is not taken."""
    weights = folder / case.weights if folder and case.weights else None
    dense = import_checkpoint(weights, case.network, None, (3, case.pixels, case.pixels))
    return {"dense": dense, "half": pipeline.run([Prune(macs=0.5, recalibrate=False)], dense)}


def sides(found: dict[str, Checkpoint], modes: Sequence[str]) -> list[Side]:
    """Every structure in every precision, run in these modes."""
    return [
        Side(structure, f"{mode}+{precision}", checkpoint)
        for mode, precision in itertools.product(modes, PRECISIONS)
        for structure, checkpoint in found.items()
    ]


def timed(given: Sequence[Side], images: Images, device: str) -> Iterator[dict[str, Any]]:
    """Each side's times and memory in one interleaved run, the first the baseline; a side that cannot be run is skipped."""
    opened: list[tuple[Side, TorchSession, dict[str, Any]]] = []
    reference: Any = None
    for side in given:
        row: dict[str, Any] = {"structure": side.structure, "way": side.way, "batch": len(images)}
        try:
            before = _held(device)
            session = side.open(device)
            answer = session(images)
        except (CompressError, torch.OutOfMemoryError) as error:
            yield {**row, "skipped": " ".join(str(error).split())[:300]}
            continue
        reference = answer if reference is None else reference
        if side.structure == given[0].structure:
            row["normalised_max_error"] = float(np.abs(answer - reference).max() / np.abs(reference).max())
        row["peak_memory_bytes"] = _held(device, peak=True) - before
        opened.append((side, session, row))
    runs = [partial(session, images) for _, session, _ in opened]
    found = interleave(runs, EFFORT, np.random.default_rng(0), time.perf_counter_ns)
    for number, (_, session, row) in enumerate(opened):
        low, median, high = latency_interval(found.ratios(number))
        latencies = [seconds for turn in found.series[number].rounds for seconds in turn]
        row |= {
            "latency_" + name: float(np.percentile(latencies, q)) for name, q in (("p50", 50), ("p90", 90), ("p99", 99))
        }
        row |= {
            "speedup": 1 / median,
            "speedup_low": 1 / high,
            "speedup_high": 1 / low,
            "round_samples": found.series[number].samples,
        }
        if device.startswith("cuda"):
            row["device_seconds"] = [session.device_seconds(images) for _ in range(10)]
        session.close()
        yield row


def _held(device: str, peak: bool = False) -> int:
    """Bytes torch holds on the GPU now, or has held at most since this was last asked; none are counted on a CPU."""
    if not device.startswith("cuda"):
        return 0
    if peak:
        return torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def accuracies(case: Case, dense: Checkpoint, data: "Data | None", device: str) -> dict[str, Any]:
    """Top-1 on the test images in every precision."""
    if data is None or case.weights is None:
        return {"skipped": "no trained weights and data were given" if case.weights else "no data for this network"}
    found = {}
    for precision in PRECISIONS:
        try:
            session = Side("dense", precision, dense).open(device)
        except CompressError as error:
            found[precision] = {"skipped": str(error)}
            continue
        [measured] = [
            each for each in on_test(session, data, runtime=f"torch:{precision}").measurements if each.metric == "top1"
        ]
        found[precision] = {"top1": measured.median}
    return found


def engine(dense: Checkpoint, images: Images) -> dict[str, str]:
    """Whether an engine of the network builds and loads here."""
    from compress.export import export
    from compress.runtime import open_session

    with tempfile.TemporaryDirectory() as folder:
        try:
            made = export(dense, Path(folder) / "net.engine", "tensorrt")
            open_session("tensorrt", made.path, device="cuda")(images)
        except CompressError as error:
            return {"skipped": str(error)}
    return {"loaded": "; ".join(f"{name} {version}" for name, version in made.tools.items())}


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """All records as one table for each network."""
    lines = [
        "# Ways to run a network on a GPU",
        "",
        f"On {found[0]['environment']['gpu'] or 'no GPU'}; made by `benchmarks/gpu.py`.",
        "",
    ]
    for each in found:
        lines += [
            f"## {each['network']}, {each['pixels']} px", "",
            f"Half keeps {each['macs']['half'] / each['macs']['dense']:.2f} of the MACs. Top-1: {_said(each['top1'])}. Engine: {_said(each['engine'])}.", "",
            "| structure | way | batch | p50 | faster than dense, eager, FP32 | peak memory |", "| --- | --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        for row in each["rows"]:
            head = f"| {row['structure']} | {row['way']} | {row['batch']} "
            if "skipped" in row:
                lines.append(f"{head}| skipped: {row['skipped'].replace('|', '/')} | | |")
                continue
            span = f"{row['speedup']:.2f}x ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})"
            lines.append(
                f"{head}| {1e3 * row['latency_p50']:.3f} ms | {span} | {row['peak_memory_bytes'] / 1e6:.0f} MB |"
            )
        lines.append("")
    return "\n".join(lines)


def _said(found: dict[str, Any]) -> str:
    """A record's words and figures on one line."""
    words = (f"{name} {_said(value) if isinstance(value, dict) else value}" for name, value in found.items())
    return ", ".join(words).rstrip(".").replace("|", "/")


def main() -> None:
    """Measure and write the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder with trained weights of the CIFAR ResNets")
    parser.add_argument("--data", help="the CIFAR-10 to test them on, such as npz:cifar10.npz")
    parser.add_argument("--networks", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--device", default="cuda", help="cpu for a trial of this script without a GPU")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "reports")
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        reason = "torch finds no NVIDIA GPU here"
        skipped = {"skipped": reason, "environment": document.plain(environment(1))}
        storage.write_text(asked.output / SKIPPED, json.dumps(skipped, indent=1) + "\n")
        print(f"skipped: {reason}; this is no pass")
        return
    from compress.data.load import load

    end = time.monotonic() + 60 * asked.minutes
    data = load(asked.data) if asked.data else None
    records: list[dict[str, Any]] = []
    work: list[tuple[dict[str, Any], dict[str, Checkpoint], list[Images]]] = []
    for case in (case for case in CASES if case.name in asked.networks):
        found = structures(case, asked.weights)
        random = np.random.default_rng(0)
        batches = [
            random.standard_normal((count, 3, case.pixels, case.pixels), dtype=np.float32) for count in (1, case.batch)
        ]
        records.append({
            "network": case.name, "pixels": case.pixels, "environment": document.plain(environment(1)), "rows": [],
            "macs": {name: macs(build(each), each.architecture.input_shape) for name, each in found.items()},
            "top1": accuracies(case, found["dense"], data if asked.weights else None, asked.device),
            "engine": engine(found["dense"], batches[0]),
        })  # fmt: skip
        work.append((records[-1], found, batches))
    for record, found, batches in work:
        for images in batches:
            record["rows"] += timed(sides(found, ("eager", "cuda-graph")), images, asked.device)
            print(f"{record['network']}, batch {len(images)}: {end - time.monotonic():.0f} s left", flush=True)
    for record, found, batches in work:
        baseline = Side("dense", "eager+fp32", found["dense"])
        for images, side in itertools.product(batches, sides(found, ("compile",))):
            row = {"structure": side.structure, "way": side.way, "batch": len(images), "skipped": OUT_OF_TIME}
            if time.monotonic() < end:
                compared = list(timed([baseline, side], images, asked.device))
                [row] = [each for each in compared if each["way"] == side.way]
            record["rows"].append(row)
    for record in records:
        storage.write_text(asked.output / f"gpu-{record['network']}.json", json.dumps(record, indent=1) + "\n")
    storage.write_text(asked.output / "gpu.md", markdown(records))
    (asked.output / SKIPPED).unlink(missing_ok=True)
    print(markdown(records))


if __name__ == "__main__":
    main()
