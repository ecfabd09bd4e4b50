"""A network trained from nothing by the library's loop, beside the same training written by hand.

    python benchmarks/scratch.py --data npz:cifar10.npz --epochs 5 --keep FOLDER

The shipped recipe `resnet20-cifar10-train` with fewer epochs. Both sides see the same train split, shifted and
flipped, at the same rates; they draw other random numbers, so that curves and not bits are compared. Writes
`reports/scratch.json` and `.md`. `--threads 1` on each of two cores trains both sides at once (`--side`).
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress import document, recipe, storage
from compress.build import build
from compress.data.load import load
from compress.data.normalise import normalise
from compress.data.splits import Data, Split
from compress.device import use
from compress.environment import environment
from compress.evaluate import evaluate
from compress.importing import import_checkpoint
from compress.pipeline import Resources
from compress.runtime.torch import TorchSession
from compress.train.step import Train

ROOT = Path(__file__).parents[1]
RECIPE = "resnet20-cifar10-train"


def main() -> None:
    """Train what is not done yet; write the table once both sides are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    use("cpu", asked.threads)
    data = load(asked.data)
    (written,) = recipe.read(recipe.find(RECIPE)).sequence
    assert isinstance(written, Train)
    step = written.model_copy(update={"epochs": asked.epochs})
    storage.folder(asked.keep)
    for side in [asked.side] if asked.side else SIDES:
        kept = asked.keep / f"{side}-{asked.epochs}.json"
        if not kept.exists():
            begun = time.monotonic()
            network, curve = SIDES[side](step, data)
            found = {"validation": curve, "test": top1(network, data, data.test), "seconds": time.monotonic() - begun}
            storage.write_text(kept, json.dumps(found, indent=1) + "\n")
            print(side, found, flush=True)
    done = {side: asked.keep / f"{side}-{asked.epochs}.json" for side in SIDES}
    if all(path.exists() for path in done.values()):
        sides = {side: json.loads(path.read_text()) for side, path in done.items()}
        write({"recipe": RECIPE, "settings": step.model_dump(mode="json"), "sides": sides})


def by_library(step: Train, data: Data) -> tuple[nn.Module, list[float]]:
    """The step itself."""
    start = import_checkpoint(None, recipe.read(recipe.find(RECIPE)).network.name, data.spec)
    made = step(start, Resources(data.learning))
    return build(made), list(made.history[-1].figures["validation_top1"])


def by_hand(step: Train, data: Data) -> tuple[nn.Module, list[float]]:
    """SGD with Nesterov momentum, a linear warm-up and a cosine, written out."""
    network = build(import_checkpoint(None, recipe.read(recipe.find(RECIPE)).network.name, data.spec))
    network = network.to(memory_format=torch.channels_last)
    images, labels = next(data.learning.train.batches(len(data.learning.train)))
    decayed = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": step.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=step.rate, momentum=step.momentum, nesterov=step.nesterov)
    generator = torch.Generator().manual_seed(0)
    each = len(labels) // step.batch
    total, warm, curve = step.epochs * each, step.warmup * each, []
    for epoch in range(step.epochs):
        network.train()
        order = torch.randperm(len(labels), generator=generator)[: each * step.batch]
        for number, chosen in enumerate(order.split(step.batch), epoch * each):
            climbing, falling = (number + 1) / warm, (1 + math.cos(math.pi * (number - warm) / (total - warm))) / 2
            for group in optimiser.param_groups:
                group["lr"] = step.rate * (climbing if number < warm else falling)
            inputs = normalise(shifted(images[chosen], generator), data.spec.preprocessing)
            with torch.autocast("cpu", torch.bfloat16, enabled=step.precision == "bf16"):
                loss = F.cross_entropy(network(inputs.to(memory_format=torch.channels_last)), labels[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        curve.append(top1(network, data, data.learning.validation))
    return network.eval(), curve


def shifted(images: Tensor, generator: torch.Generator, by: int = 4) -> Tensor:
    """Each image moved by up to four pixels over black, half of them mirrored."""
    padded = F.pad(images, (by, by, by, by))
    height, width = images.shape[2:]
    moves = torch.randint(0, 2 * by + 1, (len(images), 2), generator=generator).tolist()
    cut = torch.stack([padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(moves)])
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    cut[mirrored] = cut[mirrored].flip(3)
    return cut


def top1(network: nn.Module, data: Data, split: Split) -> float:
    """Per cent of a split answered right."""
    session = TorchSession(network.eval(), data.spec.image_shape, threads=torch.get_num_threads())
    return evaluate(session, split, data.spec, name="asked", runtime="torch").measurements[0].median


SIDES = {"library": by_library, "hand": by_hand}


def write(found: dict[str, Any]) -> None:
    """The curves as a table."""
    made = {**found, "environment": document.plain(environment(torch.get_num_threads()))}
    sides = made["sides"]
    lines = [
        "# Trained from nothing: the library's loop beside one written by hand",
        "",
        f"The recipe `{made['recipe']}` with {made['settings']['epochs']} epochs, in bf16; made by `benchmarks/scratch.py`.",
        "Top-1 in per cent, on the validation split after each epoch and at the end on the test images.",
        "",
        "| | " + " | ".join(f"epoch {n}" for n in range(1, made["settings"]["epochs"] + 1)) + " | test | minutes |",
        "| --- |" + " --- |" * (made["settings"]["epochs"] + 2),
    ]
    for side, each in sides.items():
        curve = " | ".join(f"{value:.2f}" for value in each["validation"])
        lines.append(f"| {side} | {curve} | {each['test']:.2f} | {each['seconds'] / 60:.1f} |")
    storage.write_text(ROOT / "reports" / "scratch.json", json.dumps(made, indent=1) + "\n")
    storage.write_text(ROOT / "reports" / "scratch.md", "\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
