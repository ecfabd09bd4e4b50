"""Record what the commands themselves cost: start-up, reading headers, and the time and memory of quantizing.

    python benchmarks/house.py --weights resnet20.safetensors --data npz:cifar10.npz

Writes `reports/house.json` and `reports/house.md`. Run it on a quiet machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compress import checkpoint, document, storage
from compress.data.load import load
from compress.environment import environment
from compress.fold.step import Fold
from compress.importing import import_checkpoint

ROOT = Path(__file__).parents[1]

QUANTIZE = """
import resource, sys, time
import torch
torch.set_num_threads(2)
from compress import checkpoint
from compress.data.load import load_for
from compress.pipeline import Resources
from compress.quantize import ptq
from compress.quantize.step import Quantize
file, data, images, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
start = checkpoint.load(file)
loaded = load_for(start.architecture, start.dataset, data)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.perf_counter()
Quantize(images=images, batch=batch)(start, Resources(loaded.learning))
print(time.perf_counter() - begun, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def quantizing(folded: Path, data: str, images: int, batch: int) -> dict[str, float]:
    """Seconds after imports, and bytes the process grew by, of one quantization in a fresh process."""
    words = [sys.executable, "-c", QUANTIZE, str(folded), data, str(images), str(batch)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds, grown = done.stdout.split()
    return {"images": images, "batch": batch, "seconds": float(seconds), "grown_bytes": float(grown)}


def answering(*words: str, runs: int = 7) -> dict[str, object]:
    """Median seconds of a command from start to exit."""
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "compress", *words], capture_output=True, check=False)
        taken.append(time.perf_counter() - begun)
    return {
        "command": "compress " + " ".join(Path(word).name if "/" in word else word for word in words),
        "seconds": taken,
    }


def large_checkpoint(folder: Path) -> Path:
    """A checkpoint of 100 MB and more: ResNet-50 with random weights."""
    made = import_checkpoint(None, "torchvision:resnet50", None, (3, 224, 224))
    checkpoint.save(made, folder / "resnet50.safetensors")
    return folder / "resnet50.safetensors"


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = import_checkpoint(asked.weights, "resnet20", load(asked.data).spec)
        checkpoint.save(Fold()(base), folder / "folded.safetensors")
        (folder / "wrong.yaml").write_text("network: {name: resnet20}\ndata: {name: digits}\nsteps:\n  - pruen: {}\n")
        large = large_checkpoint(folder)
        found = {
            "answering": [
                answering("--help"),
                answering("prnue"),
                answering("run", str(folder / "wrong.yaml"), "-o", str(folder / "out")),
                answering("show", str(large)),
            ],
            "large_checkpoint_bytes": large.stat().st_size,
            "quantizing": [
                quantizing(folder / "folded.safetensors", asked.data, images, batch)
                for images, batch in ((512, 64), (256, 64), (4096, 64), (256, 256), (4096, 256))
            ],
            "environment": document.plain(environment(2)),
        }
    storage.write_text(ROOT / "reports" / "house.json", json.dumps(found, indent=1) + "\n")
    storage.write_text(ROOT / "reports" / "house.md", markdown(found))
    print((ROOT / "reports" / "house.md").read_text())


def markdown(found: dict) -> str:
    """The record as two tables."""
    lines = [
        "# What the commands themselves cost",
        "",
        f"On {found['environment']['cpu']}, two threads; made by `benchmarks/house.py`.",
        "",
    ]
    lines += ["| command | median, s | slowest, s |", "| --- | --- | --- |"]
    for row in found["answering"]:
        lines.append(f"| `{row['command']}` | {statistics.median(row['seconds']):.2f} | {max(row['seconds']):.2f} |")
    lines += ["", f"The checkpoint shown has {found['large_checkpoint_bytes'] / 1e6:.0f} MB.", ""]
    lines += [
        "| quantizing ResNet-20, calibration images | batch | seconds after imports | memory grown, MB |",
        "| --- | --- | --- | --- |",
    ]
    for row in found["quantizing"]:
        lines.append(f"| {row['images']} | {row['batch']} | {row['seconds']:.1f} | {row['grown_bytes'] / 1e6:.0f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
