"""Record what graphs tell without being timed: MACs beside torchvision's, and what lint finds in files of other quantizers.

    python benchmarks/graphs.py macs
    python benchmarks/graphs.py lint --weights FOLDER --data npz:cifar10.npz --keep FOLDER

`macs` counts every CNN of torchvision at the size its published weights are for. `lint` takes what onnxruntime's
`quantize_static` and NNCF, where it is installed, write of ResNet-20 (trained, from `FOLDER/resnet20_cifar10.safetensors`) and of ResNet-18
and MobileNetV2 (random weights), before and after `--fix`; files stay in `--keep`. Write `reports/macs.*` and `reports/lint.*`.
"""

import argparse
import importlib.util
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from families import blotches, lively
from quantize import accuracy
from quantize_peers import peers

from compress import document, networks, storage
from compress.architecture import Architecture
from compress.checkpoint import Checkpoint
from compress.data.load import load
from compress.data.normalise import normalise
from compress.data.splits import Data
from compress.device import use
from compress.environment import environment
from compress.errors import CompressError
from compress.export.onnx import export
from compress.export.settings import Settings
from compress.export.tensorrt import build
from compress.fold.step import Fold
from compress.importing import import_checkpoint
from compress.lint.check import check
from compress.lint.finding import Finding
from compress.macs import macs
from compress.quantize.target import RUN
from compress.runtime.onnxruntime import OnnxSession

ROOT = Path(__file__).parents[1]
TRANSFORMERS = ("vit_", "swin_", "maxvit_")
"""How the names of torchvision's classifiers begin that are no CNNs."""
GOAL = 0.005
DIGITS = 3
"""Decimals of torchvision's figures, in billions."""
LINTED = {"resnet20": "resnet20_cifar10.safetensors", "torchvision:resnet18": None, "torchvision:mobilenet_v2": None}


def main() -> None:
    """Count or look, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["macs", "lint"])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "reports")
    asked = parser.parse_args()
    use("cpu", 1)
    if asked.task == "macs":
        found, shown = counted(), macs_page
    elif asked.weights and asked.data and asked.keep:
        found, shown = looked(asked), lint_page
    else:
        parser.error("lint needs --weights, --data and --keep")
    found["environment"] = document.plain(environment(1))
    storage.write_text(asked.output / f"{asked.task}.json", json.dumps(found, indent=1) + "\n")
    storage.write_text(asked.output / f"{asked.task}.md", shown(found))
    print(shown(found))


def counted() -> dict[str, Any]:
    """The MACs of every CNN at every size that torchvision publishes a figure for."""
    from torchvision import models

    rows = []
    for name in models.list_models(module=models):
        if name.startswith(TRANSFORMERS):
            continue
        published = {
            (weights.transforms().crop_size[0], weights.meta["_ops"])
            for weights in models.get_model_weights(name)
            if weights.meta["categories"]  # one file of VGG-16 holds no classifier
        }
        architecture = Architecture("torchvision", name, {"num_classes": 1000}, (3, 224, 224))
        network = networks.create(architecture).to("meta")
        for pixels, billions in sorted(published):
            rows.append(
                {"network": name, "pixels": pixels, "published": billions, "macs": macs(network, (3, pixels, pixels))}
            )
            print(rows[-1], flush=True)
    return {"goal": GOAL, "rows": rows}


def macs_page(found: dict[str, Any]) -> str:
    """The counts as a table, and how many reach the goal."""
    rows = found["rows"]
    off = [abs(row["macs"] / 1e9 / row["published"] - 1) for row in rows]
    same = [round(row["macs"] / 1e9, DIGITS) == row["published"] for row in rows]
    lines = [
        "# MACs beside torchvision's figures", "",
        f"Every CNN classifier of torchvision {found['environment']['versions']['torchvision']} at every size it publishes a figure for; made by",
        f"`benchmarks/graphs.py`. Goal: within {found['goal']:.1%} of the published figure, in billions with {DIGITS} decimals: "
        f"{sum(each <= found['goal'] for each in off)} of {len(rows)} are.",
        f"Rounded to as many decimals, {sum(same)} of {len(rows)} are the published figure itself.", "",
        "| network | pixels | published, 10^9 | counted, 10^9 | off by | rounded the same |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row, share, equal in zip(rows, off, same, strict=True):
        lines.append(
            f"| {row['network']} | {row['pixels']} | {row['published']:.{DIGITS}f} | {row['macs'] / 1e9:.5f} | {share:.3%} "
            f"| {'yes' if equal else 'no'} |"
        )
    return "\n".join([*lines, ""])


def looked(asked: argparse.Namespace) -> dict[str, Any]:
    """What lint finds in each quantizer's file of each network, and what is left of it after `--fix`."""
    rows, keep = [], storage.folder(asked.keep)
    for network, weights in LINTED.items():
        data = load(asked.data) if weights else blotches(keep, 224)
        source = export(Fold()(start(network, asked.weights / weights if weights else None, data)))
        for number, (tool, make) in enumerate(peers(source, data).items()):
            path = keep / f"{network.rpartition(':')[2]}-{number}.onnx"
            if not path.exists():
                storage.write_bytes(path, make())
            for target in RUN:
                rows.append(
                    {"network": network, "tool": tool, "target": target}
                    | linted(path, target, data if weights else None)
                )
                print(rows[-1], flush=True)
    return {"nncf": importlib.util.find_spec("nncf") is not None, "rows": rows}


def start(network: str, weights: Path | None, data: Data) -> Checkpoint:
    """A network with its trained weights, or with random ones of which every layer's signal is of order one."""
    base = import_checkpoint(weights, network, data.spec)
    if weights is not None:
        return base
    pixels, labels = next(data.learning.calibration.batches(64))
    return lively(base, normalise(pixels, data.spec.preprocessing), labels)


def linted(path: Path, target: str, data: Data | None) -> dict[str, Any]:
    """The findings of one file for one target, before and after, and what that runtime makes of both files.

    `data` are the images that trained weights are for.
    """
    repaired = path.with_suffix(f".{target}.onnx")
    before, after = check(path, target), check(path, target, output=repaired)
    found: dict[str, Any] = {
        "before": by_rule(before.findings), "after": by_rule(after.findings), "repairs": document.plain(after.repairs),
    }  # fmt: skip
    for side, file in (("before", path), ("after", repaired)):
        if target == "onnxruntime-cpu":
            session = OnnxSession(file.read_bytes())
            found[f"integer_macs_{side}"] = session.integer_macs()
            if data is not None:
                found[f"top1_{side}"] = accuracy(session, data, "onnxruntime")
        elif target == "tensorrt":
            found[f"engine_{side}"] = built(file)
    return found


def by_rule(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings each rule has."""
    return dict(Counter(finding.rule for finding in findings))


def built(path: Path) -> str:
    """Whether TensorRT-RTX builds an engine of a file."""
    try:
        build(path.read_bytes(), Settings(compute_capability="8.6"))
    except CompressError as error:
        return str(error)
    return "built"


def lint_page(found: dict[str, Any]) -> str:
    """The findings as a table for each network."""
    lines = [
        "# What lint finds in the files of other quantizers", "",
        "Findings by rule, before and after `compress lint --fix`; made by `benchmarks/graphs.py`. ResNet-20 has trained weights, the others random",
        "ones. Integer MACs and, of trained weights, top-1 on the 10,000 test images of CIFAR-10 are ONNX Runtime's; engines are built by TensorRT-RTX for compute capability 8.6.",
    ]  # fmt: skip
    if not found["nncf"]:
        lines.append("NNCF is not installed here: its files are skipped.")
    for network in dict.fromkeys(row["network"] for row in found["rows"]):
        lines += [
            "",
            f"## {network}",
            "",
            "| quantizer | target | before | after `--fix` | integer MACs | top-1 | engine |",
        ]
        lines.append("| --- | --- | --- | --- | --- | --- | --- |")
        for row in (row for row in found["rows"] if row["network"] == network):
            rules = [
                ", ".join(f"{count} {rule}" for rule, count in row[side].items()) or "none"
                for side in ("before", "after")
            ]
            cells = [_both(row, "integer_macs", "{:.1f} %"), _both(row, "top1", "{:.2f}"), _both(row, "engine", "{}")]
            lines.append(f"| {row['tool']} | {row['target']} | {' | '.join([*rules, *cells])} |")
    return "\n".join([*lines, ""])


def _both(row: dict[str, Any], name: str, form: str) -> str:
    """A figure before and after, where it was taken."""
    if f"{name}_before" not in row:
        return ""
    values = (row[f"{name}_{side}"] for side in ("before", "after"))
    said = [
        "unknown" if value is None else form.format(value) if name != "engine" or value == "built" else "refused"
        for value in values
    ]
    return f"{said[0]}, then {said[1]}"


if __name__ == "__main__":
    main()
