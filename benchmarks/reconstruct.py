"""Record what pruning without training keeps: CIFAR ResNets, top-1 on the whole test set.

    python benchmarks/reconstruct.py --weights FOLDER --data npz:cifar10.npz

FOLDER holds `resnet20_cifar10.safetensors` and `resnet56_cifar10.safetensors`. Writes `reports/reconstruct.json` and
`reports/reconstruct.md`, after every row. Run it on a quiet machine.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from compress import document, storage
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.data.load import load
from compress.data.splits import Data
from compress.environment import environment
from compress.evaluate import on_test
from compress.importing import import_checkpoint
from compress.macs import macs
from compress.pipeline import Resources
from compress.prune.allocation import Bounds, cost_of, for_cost, lowest, uniform
from compress.prune.criteria import score_groups
from compress.prune.groups import find_groups, lost
from compress.prune.reconstruct import reconstruct
from compress.prune.step import Prune
from compress.runtime.torch import TorchSession

ROOT = Path(__file__).parents[1]
NETWORKS = ("resnet20", "resnet56")
SHARES, IMAGES = (0.5, 0.75), 1024
Way = Callable[[Checkpoint, Resources, float, int], torch.nn.Module]


def by_step(**fields: Any) -> Way:
    """Pruned by the step itself."""

    def prune(base: Checkpoint, resources: Resources, share: float, multiple: int) -> torch.nn.Module:
        return build(Prune(macs=share, round_to=multiple, images=IMAGES, **fields)(base, resources))

    return prune


def l2_solved(base: Checkpoint, resources: Resources, share: float, multiple: int) -> torch.nn.Module:
    """The channels l2 chooses, the same share of each group, and the layers solved again."""
    network, shape = build(base), base.architecture.input_shape
    groups, _ = find_groups(network, shape)
    scores, _ = score_groups(network, groups, "l2", resources)
    counts = for_cost(uniform, scores, Bounds(multiple, 0.9), share, cost_of(network, shape))
    return reconstruct(network, lost(lowest(scores, counts)), shape, resources, IMAGES, ())[0]


WAYS: dict[str, Way] = {
    "l2": by_step(recalibrate=False),
    "l2 + recalibration": by_step(),
    "l2 + least squares": l2_solved,
    "elimination + least squares": by_step(reconstruct=True),
}
ROWS = [*((way, 4) for way in WAYS), ("elimination + least squares", 8)]
"""Each way, and the multiple of channels that stays; 8 is what the step has by itself."""


def top1(network: torch.nn.Module, data: Data) -> float:
    """Per cent of the test images answered right."""
    session = TorchSession(network, data.spec.image_shape, threads=torch.get_num_threads())
    return on_test(session, data, runtime="torch").measurements[0].median


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    data = load(asked.data)
    resources = Resources(data.learning)
    found: dict[str, Any] = {"images": IMAGES, "dense": {}, "rows": []}
    bases = {
        name: import_checkpoint(asked.weights / f"{name}_cifar10.safetensors", name, data.spec) for name in NETWORKS
    }
    for share, (name, base) in itertools.product(SHARES, bases.items()):
        whole, shape = build(base), base.architecture.input_shape
        found["dense"][name] = found["dense"].get(name) or top1(whole, data)
        for way, multiple in ROWS:
            begun, busy = time.perf_counter(), time.process_time()
            network = WAYS[way](base, resources, share, multiple)
            row = {"network": name, "way": way, "round_to": multiple, "load": os.getloadavg()[0]}
            row |= {"seconds": time.perf_counter() - begun, "processor_seconds": time.process_time() - busy}
            row |= {"macs": macs(network, shape) / macs(whole, shape), "top1": top1(network, data)}
            found["rows"].append(row)
            found["environment"] = document.plain(environment(asked.threads))
            storage.write_text(ROOT / "reports" / "reconstruct.json", json.dumps(found, indent=1) + "\n")
            storage.write_text(ROOT / "reports" / "reconstruct.md", markdown(found))
            print(json.dumps(row), flush=True)


def markdown(found: dict[str, Any]) -> str:
    """The record as a table."""
    threads = found["environment"]["threads"]
    lines = [
        "# What pruning keeps without training",
        "",
        f"CIFAR-10, top-1 on all test images; {found['images']} calibration images, no labels, no training step. "
        f"On {found['environment']['cpu']}, {threads} thread{'s' if threads > 1 else ''}; made by `benchmarks/reconstruct.py`.",
        "",
        *(f"{name} as it was: {accuracy:.2f}." for name, accuracy in found["dense"].items()),
        "",
        "| network | channels in multiples of | how | share of the MACs | top-1 | seconds | of the processor |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['network']} | {row['round_to']} | {row['way']} | {row['macs']:.3f} | {row['top1']:.2f} "
            f"| {row['seconds']:.1f} | {row['processor_seconds']:.1f} |"
        )
    busiest = max(row["load"] for row in found["rows"])
    if busiest > 1.5 * threads:
        lines += [
            "",
            f"The machine was busy with other work (a load of up to {busiest:.1f}), so the seconds say little.",
        ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
