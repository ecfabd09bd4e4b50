"""What the training loop costs beside the bare minimum: forward, backward and step over images in memory.

    python benchmarks/train_throughput.py --data npz:cifar10.npz --network resnet20 -o reports/train-throughput.json

Both sides take the same images, network, optimiser and batch, alternately, so that a change of the machine's
speed meets both. Peak memory is that of a fresh process each. `--checkpointing` adds a third process that
recomputes its blocks. Run it on a quiet machine.
"""

import argparse
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from compress import document, storage
from compress.architecture import Architecture
from compress.data.arrays import ArraySplit
from compress.data.load import load
from compress.data.normalise import normalise
from compress.data.splits import LearningData
from compress.device import use
from compress.environment import environment
from compress.networks import create
from compress.progress import silent
from compress.train.distributed import Place
from compress.train.loop import fit
from compress.train.plan import prepare
from compress.train.step import Train

OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Each tensor in pages of its own while memory is measured: glibc leaves gaps between aligned blocks, which is its own affair."""

Round = Callable[[], object]


def made(name: str, data: LearningData) -> torch.nn.Module:
    """The network of a name, with the same random weights each time."""
    arguments = {"num_classes": len(data.spec.classes)}
    return create(Architecture("compress", name, arguments, data.spec.image_shape))


def loop(asked: argparse.Namespace, data: LearningData, checkpointing: bool = False) -> Round:
    """A round of the library's loop."""
    step = Train(
        epochs=1, batch=asked.batch, augmentation="none", warmup=0.0, precision=asked.precision, checkpointing=checkpointing
    )  # fmt: skip
    network = made(asked.network, data)
    prepared = prepare(step, network, data, Place(0, 1, asked.device), 0, validates=False)
    return lambda: fit(network, prepared.split, prepared.run.optimiser, prepared.plan, silent)


def bare(asked: argparse.Namespace, data: LearningData) -> Round:
    """A round of the shortest loop by hand."""
    network = made(asked.network, data).to(asked.device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images, labels = next(data.train.batches(len(data.train)))
    images, labels = images.to(asked.device), labels.to(asked.device)
    half = asked.precision == "bf16"

    def round_() -> None:
        network.train()
        for chosen in torch.split(torch.randperm(len(labels)), asked.batch):
            inputs = normalise(images[chosen], data.spec.preprocessing).to(memory_format=torch.channels_last)
            with torch.autocast(torch.device(asked.device).type, torch.bfloat16, enabled=half):
                loss = functional.cross_entropy(network(inputs), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if asked.device.startswith("cuda"):
            torch.cuda.synchronize()

    return round_


SIDES: dict[str, Callable[[argparse.Namespace, LearningData], Round]] = {
    "bare": bare,
    "loop": loop,
    "checkpointing": lambda asked, data: loop(asked, data, checkpointing=True),
}


def images(asked: argparse.Namespace) -> LearningData:
    """As many training images as a round takes."""
    learning = load(asked.data).learning
    assert isinstance(learning.train, ArraySplit), "images in memory are compared"
    positions = learning.train.positions[: asked.steps * asked.batch]
    return dataclasses.replace(learning, train=dataclasses.replace(learning.train, positions=positions))


def peak(asked: argparse.Namespace) -> int:
    """Bytes that a round of one side adds to this process at most, on the GPU where there is one (Linux)."""
    data = images(asked)
    Path("/proc/self/clear_refs").write_text("5")  # what importing and loading took does not count
    before = resident()
    SIDES[asked.only](asked, data)()
    if asked.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resident() - before


def resident() -> int:
    """The most bytes of memory this process has had since that was last reset."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each round, the ratio of their medians, and peak bytes."""
    data = images(asked)
    rounds = {name: SIDES[name](asked, data) for name in ("bare", "loop")}
    seconds: dict[str, list[float]] = {name: [] for name in rounds}
    for name in [*rounds] + [*rounds] * asked.rounds:
        begun = time.perf_counter()
        rounds[name]()
        seconds[name].append(time.perf_counter() - begun)
    seconds = {name: each[1:] for name, each in seconds.items()}  # the first one warms up
    ratios = [before / after for before, after in zip(seconds["bare"], seconds["loop"], strict=True)]
    peaks = {}
    for name in SIDES if asked.checkpointing else rounds:
        words = [sys.executable, *sys.argv, "--only", name]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, **OWN_PAGES})
        peaks[name] = int(done.stdout)
    return {
        "network": asked.network,
        "batch": asked.batch,
        "steps": asked.steps,
        "precision": asked.precision,
        "seconds": seconds,
        "throughput_ratio": statistics.median(ratios),
        "peak_bytes": peaks,
        "environment": document.plain(environment(asked.threads)),
    }


def markdown(found: dict[str, Any]) -> str:
    """What was found, as a page."""
    bare = found["peak_bytes"]["bare"]
    lines = [
        f"# What the training loop costs: {found['network']}, batch {found['batch']}, {found['precision']}",
        "",
        f"On {found['environment']['cpu']}, {found['environment']['threads']} threads; made by `benchmarks/train_throughput.py`. Images a second of the",
        f"library's loop are {found['throughput_ratio']:.3f} of those of forward, backward and step by hand over data in memory, in {len(found['seconds']['bare'])} rounds",
        f"of {found['steps']} steps taken in turns. Peak memory is what one round adds to a fresh process.",
        "",
        "| | seconds a step, median | peak memory | of the bare minimum's |",
        "| --- | --- | --- | --- |",
    ]
    for name, peak in found["peak_bytes"].items():
        seconds = found["seconds"].get(name)
        taken = f"{statistics.median(seconds) / found['steps']:.4f}" if seconds else ""
        lines.append(f"| {name} | {taken} | {peak / 1e6:.0f} MB | {peak / bare:.2f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--network", default="digits_cnn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    use(asked.device, asked.threads)
    if asked.only:
        print(peak(asked))
        return
    found = measured(asked)
    print(markdown(found))
    if asked.output:
        storage.write_text(asked.output, json.dumps(found, indent=2) + "\n")
        storage.write_text(asked.output.with_suffix(".md"), markdown(found))


if __name__ == "__main__":
    main()
