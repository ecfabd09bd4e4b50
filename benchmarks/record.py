"""Run the shipped recipes and record what they give in `reports/`; nothing there is typed.

    python benchmarks/record.py digits
    python benchmarks/record.py resnet20-cifar10 --weights resnet20.safetensors --data npz:cifar10.npz

Run it on a quiet machine: it takes a minute for the digits, and for CIFAR-10 as long as thirteen epochs of training.
"""

import argparse
import tempfile
from pathlib import Path

from compress import checkpoint, recipe
from compress.data.load import load
from compress.device import use
from compress.execute import Given, execute
from compress.importing import import_checkpoint
from compress.report import rendering
from compress.report.report import from_recordings

ROOT = Path(__file__).parents[1]
RECIPES = {
    "digits": ("digits",),
    "resnet20-cifar10": ("resnet20-cifar10-ptq", "resnet20-cifar10-qat", "resnet20-cifar10"),
}
TITLES = {"digits": "A small CNN for handwritten digits", "resnet20-cifar10": "ResNet-20 for CIFAR-10"}


def main() -> None:
    """Run one case and write its report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=RECIPES)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the runs, so that a stopped one goes on")
    asked = parser.parse_args()
    use("cpu", asked.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        start = ROOT / "models" / "digits.safetensors"
        if asked.weights:
            start = folder / "base.safetensors"
            network = asked.case.partition("-")[0]
            checkpoint.save(import_checkpoint(asked.weights, network, load(asked.data).spec), start)
        runs = []
        for name in RECIPES[asked.case]:
            path = recipe.find(name)
            outcome = execute(recipe.read(path), folder / name, Given(path.parent, start, asked.data), said=print)
            print(f"{name}: the gate {outcome.verdict.outcome}")
            runs.append(folder / name)
        made = from_recordings(runs, TITLES[asked.case])
        for path in rendering.write(made, ROOT / "reports" / asked.case):
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
