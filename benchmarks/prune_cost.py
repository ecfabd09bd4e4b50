"""What pruning itself costs, in seconds and memory, beside torch-pruning: ResNet-50 for 224 pixels to half its MACs.

    python benchmarks/prune_cost.py --repetitions 5 --threads 2

Each side runs in fresh processes, in turns, from weights in memory to a narrowed network in memory, without recovery. torch-pruning
has no such target: it is told the share of the channels that leaves half the MACs, found beforehand, so it need not search.
How long it takes to measure batch norms again, as is done by default, stands apart. Writes `reports/prune-cost.*`; run it on
a quiet machine.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch_pruning
import torchvision
from torch import nn

from compress import document, storage
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.device import use
from compress.environment import environment
from compress.importing import import_checkpoint
from compress.macs import macs
from compress.prune import removal  # noqa: F401  # the step imports it when it is called, and torch-pruning is imported by then
from compress.prune.recalibrate import recalibrate
from compress.prune.step import Prune

REPORT = Path(__file__).parents[1] / "reports" / "prune-cost"
NETWORK, SHAPE = "torchvision:resnet50", (3, 224, 224)
SIDES = ("torch-pruning", "compress")
RATIO = 0.28
"""Share of the channels of each layer without which torch-pruning leaves half of ResNet-50's MACs."""
IMAGES = 16
"""Images that batch norms are measured on again."""
GOAL = 1.5
"""Times torch-pruning's seconds; times the network's own bytes."""


def main() -> None:
    """Measure all sides in turns and write, or one side in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", choices=SIDES, help="measure this one alone, and print it")
    asked = parser.parse_args()
    use("cpu", asked.threads)
    if asked.side:
        print(json.dumps(measured(asked.side)))
        return
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(asked.repetitions):
        for side in SIDES:
            words = [sys.executable, "-W", "ignore", __file__, "--side", side, "--threads", str(asked.threads)]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(side, found[side][-1], flush=True)
    made = {"sides": found, "load": os.getloadavg()[0], "environment": document.plain(environment(asked.threads))}
    storage.write_text(REPORT.with_suffix(".json"), json.dumps(made, indent=1) + "\n")
    storage.write_text(REPORT.with_suffix(".md"), markdown(made))
    print(markdown(made))


def measured(side: str) -> dict[str, float]:
    """What one side took: seconds, the share of the MACs left, and the most bytes held beside the network it began with."""
    base = import_checkpoint(None, NETWORK, input_shape=SHAPE)
    own = sum(tensor.nbytes for tensor in base.weights.values())
    whole = macs(build(base), SHAPE)  # also has torch take what its first convolutions need
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or what was used before, and is free, would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set is counted from here on
    held, begun, busy = resident("VmRSS"), time.perf_counter(), time.process_time()
    pruned = torch_pruned(base) if side == SIDES[0] else Prune(macs=0.5, recalibrate=False)(base)
    found = {"seconds": time.perf_counter() - begun, "processor_seconds": time.process_time() - busy}
    found |= {"bytes": resident("VmHWM") - held, "own_bytes": own}
    left = build(pruned) if isinstance(pruned, Checkpoint) else pruned
    begun = time.perf_counter()
    recalibrate(left, torch.rand(IMAGES, *SHAPE).split(8))
    return found | {"macs": macs(left, SHAPE) / whole, "recalibrating": time.perf_counter() - begun}


def torch_pruned(base: Checkpoint) -> nn.Module:
    """What torch-pruning's magnitude pruner makes of the same weights, as its own page shows it."""
    network = torchvision.models.resnet50()
    network.load_state_dict(base.weights)
    pruner = torch_pruning.pruner.BasePruner(
        network,
        torch.rand(1, *SHAPE),
        torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        round_to=8,
        ignored_layers=[network.fc],
    )
    pruner.step()
    return network


def resident(line: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(each for each in status.splitlines() if each.startswith(line)).split()[1])


def markdown(made: dict[str, Any]) -> str:
    """The medians, as a page, and what they are beside the goal."""
    medians = {
        side: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for side, runs in made["sides"].items()
    }
    theirs, ours = (medians[side] for side in SIDES)
    slower, larger = (ours[name] / theirs[name] for name in ("processor_seconds", "bytes"))
    threads = made["environment"]["threads"]
    lines = [
        "# What pruning itself costs",
        "",
        f"ResNet-50 for 224 pixels to half its MACs, without recovery; medians of {len(made['sides']['compress'])} fresh processes each, in turns.",
        f"On {made['environment']['cpu']}, {threads} thread{'s' if threads > 1 else ''}; made by `benchmarks/prune_cost.py`.",
        "",
        "| | MACs kept | seconds | of the processor | most memory beside the weights, MB | times the network's own |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {side} | {row['macs']:.3f} | {row['seconds']:.2f} | {row['processor_seconds']:.2f} "
            f"| {row['bytes'] / 1e6:.0f} | {row['bytes'] / row['own_bytes']:.2f} |"
            for side, row in medians.items()
        ),
        "",
        f"compress takes {slower:.2f} of torch-pruning's processor time and {larger:.2f} of its memory; the goal is {GOAL:g} of its time",
        f"and {GOAL:g} of the network's own memory. It tries each group's law, counts costs and digests both checkpoints besides.",
        f"Measuring the batch norms again takes another {ours['recalibrating'] / IMAGES:.3f} s an image.",
    ]
    if made["load"] > 1.5 * threads:
        lines += [
            "",
            f"The machine was busy with other work (a load of {made['load']:.1f}), so the seconds say little.",
        ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
