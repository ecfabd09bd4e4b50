"""Every family of CNN through pruning, reloading, folding, ONNX, INT8 and TensorRT, with parity at every hop.

    python benchmarks/matrix.py check --keep FOLDER
    python benchmarks/matrix.py time --keep FOLDER
    python benchmarks/matrix.py write --keep FOLDER

`check` takes each network through the hops in a process of its own, with a time limit; `time`, on a quiet
machine, sets INT8 beside FP32 and onnxruntime's own quantizer; `write` puts both in `reports/matrix.*`. All keep
what is done in FOLDER and go on after a kill. Weights are random behind batch norms that know their inputs,
as no file of trained ones is at hand: what is shown is that every hop holds, and what it costs, not accuracy.
"""

import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress import checkpoint, document, parity, storage
from compress.build import build, structure
from compress.checkpoint import Checkpoint
from compress.data.load import load
from compress.data.normalise import normalise
from compress.data.splits import Data
from compress.device import use
from compress.environment import environment
from compress.errors import CompressError
from compress.export import export
from compress.export.settings import Settings
from compress.fold.step import Fold
from compress.importing import import_checkpoint
from compress.interleave import Effort, interleave
from compress.interval import ratio_interval
from compress.macs import macs
from compress.measurement import Hop
from compress.pipeline import Resources
from compress.prune.recalibrate import batch_norms, recalibrate
from compress.prune.step import Prune
from compress.quantize.step import Quantize
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.torch import TorchSession

ROOT = Path(__file__).parents[1]
TORCHVISION = (
    *("alexnet", "vgg16", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121"),
    *("googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "shufflenet_v2_x1_0"),
    *("squeezenet1_1", "mnasnet1_0", "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf"),
    "convnext_tiny",
)
TIMM = (
    *("resnetv2_50", "repvgg_a0", "ghostnet_100", "hrnet_w18_small", "darknet53", "cspresnet50", "dla34"),
    *("tf_mixnet_s", "res2net50_26w_4s", "vovnet39a"),
)
NETWORKS = [*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM)]
LIMIT = 900
"""Seconds after which a network's process is ended."""
IMAGES, CLASSES = 160, 4
BATCHES = (1, 8)
SIDES = ("fp32", "int8", "quantize_static")
ENGINES: dict[str, Settings] = {
    name: Settings(precision=name if name == "fp16" else None, compute_capability="8.6", batches=(1, 8, 8))
    for name in ("fp32", "fp16", "int8")
}


def main() -> None:
    """Check, time, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["check", "time", "write", "one", "digest"])
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=12.0, help="longest time for one batch size of one network")
    asked = parser.parse_args()
    use("cpu", asked.threads)
    if asked.task == "digest":
        print(digest(checkpoint.load(asked.keep)))
    elif asked.task == "one":
        print(json.dumps(checked(asked.networks[0], asked.keep)))
    elif asked.task == "write":
        write(asked.keep)
    else:
        for network in asked.networks:
            kept = place(asked.keep, network) / f"{asked.task}.json"
            if not kept.exists():
                found = apart(network, asked) if asked.task == "check" else timed(network, asked)
                storage.folder(kept.parent)
                storage.write_text(kept, json.dumps(found, indent=1) + "\n")
                print(network, found.get("failed") or json.dumps(found)[:300], flush=True)


def place(keep: Path, network: str) -> Path:
    """The folder of a network's files."""
    return keep / network.replace(":", "-")


def apart(network: str, asked: argparse.Namespace) -> dict[str, Any]:
    """What `checked` finds, in a process of its own."""
    words = [sys.executable, __file__, "one", "--keep", str(asked.keep), "--networks", network]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {LIMIT} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def blotches(keep: Path, side: int) -> Data:
    """Images of coloured blotches, written once."""
    path = storage.folder(keep) / f"blotches-{side}.npz"
    if not path.exists():
        coarse = torch.rand(IMAGES, 3, 7, 7, generator=torch.Generator().manual_seed(0))
        images = (nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).byte()
        arrays = {"images": images.movedim(1, 3).numpy(), "labels": np.arange(IMAGES) % CLASSES}
        np.savez(path, **{f"{part}_{name}": array for part in ("train", "test") for name, array in arrays.items()})
    return load(f"npz:{path}")


def checked(network: str, keep: Path) -> dict[str, Any]:
    """Take a network through every hop; the files that are timed later stay in its folder."""
    folder = storage.folder(place(keep, network))
    data = blotches(keep, 299 if "inception" in network else 224)
    pixels, _ = next(data.learning.calibration.batches(64))
    images = normalise(pixels, data.spec.preprocessing)
    shown, resources = images.numpy()[:32], Resources(data.learning)
    base = lively(import_checkpoint(None, network, data.spec), images)
    found: dict[str, Any] = {"hops": {}}
    hops: dict[str, Any] = found["hops"]

    begun = time.monotonic()
    pruned = Prune(macs=0.5, images=64)(base, resources)
    found["prune_seconds"] = time.monotonic() - begun
    input_shape = base.architecture.input_shape
    found["macs"] = macs(structure(pruned.architecture), input_shape) / macs(structure(base.architecture), input_shape)
    found["refusals"] = [f"{refusal.layer}: {refusal.reason}" for refusal in pruned.history[-1].refusals]
    path = folder / "pruned.safetensors"
    checkpoint.save(pruned, path)
    hops["reloaded"] = "passed" if digest(pruned) == digest_apart(path) else "other logits in a fresh process"
    path.unlink()
    folded = Fold()(pruned, resources)
    hops["folded"] = verdict(session(pruned), session(folded), shown, "exact")
    hops["onnx"] = verdict(session(folded), file(folded, folder / "pruned.onnx"), shown, "exact")
    small = Quantize(images=64, batch=16)(folded, resources)
    hops["pruned INT8"] = verdict(session(small), file(small, folder / "pruned-int8.onnx", False), shown, "integer")

    dense = Fold()(base, resources)
    whole = file(dense, folder / "fp32.onnx")
    hops["dense onnx"] = verdict(session(dense), whole, shown, "exact")
    int8 = Quantize(images=64, batch=16)(dense, resources)
    hops["INT8"] = verdict(session(int8), file(int8, folder / "int8.onnx", False), shown, "integer")
    found["integer_macs"] = OnnxSession((folder / "int8.onnx").read_bytes()).integer_macs()
    found["left_in_float"] = [f"{refusal.layer}: {refusal.reason}" for refusal in int8.history[-1].refusals]
    found["engines"] = engines(dense, Quantize(target="tensorrt", images=64, batch=16)(dense, resources), shown, folder)
    try:
        peer(folder / "fp32.onnx", folder / "quantize_static.onnx", shown)
    except Exception as error:  # whatever the other tool raises is its own
        found["quantize_static"] = f"{type(error).__name__}: {error}"
    return found


def lively(start: Checkpoint, images: Tensor) -> Checkpoint:
    """Random weights of which every layer's signal is of order one, and a classifier that prefers no class."""
    network = build(start)
    with torch.no_grad():
        if not batch_norms(network):
            for module in network.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    nn.init.kaiming_normal_(
                        module.weight, nonlinearity="relu", generator=torch.Generator().manual_seed(0)
                    )
        for name, parameter in network.named_parameters():
            if name.endswith(("layer_scale", "gamma")):  # made to begin near zero
                parameter.fill_(0.3)
        recalibrate(network, images.split(32))
        logits = network(images)
        last = [module for module in network.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
        if last.bias is not None and last.weight.shape[0] == logits.shape[1]:
            last.weight /= logits.std()
            last.bias.copy_((last.bias - logits.mean(0)) / logits.std())
    return dataclasses.replace(start, weights=network.state_dict())


def digest(given: Checkpoint) -> str:
    """Of a checkpoint's logits for images of noise."""
    images = torch.randn(2, *given.architecture.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return hashlib.sha256(build(given)(images).numpy().tobytes()).hexdigest()


def digest_apart(path: Path) -> str:
    """The same in a fresh process."""
    words = [sys.executable, __file__, "digest", "--keep", str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def session(given: Checkpoint) -> TorchSession:
    """A checkpoint, to be asked."""
    return TorchSession(build(given), given.architecture.input_shape)


def file(given: Checkpoint, path: Path, optimise: bool = True) -> OnnxSession:
    """A checkpoint's ONNX file, to be asked."""
    export(given, path)
    return OnnxSession(path.read_bytes(), optimise=optimise)


def verdict(before: Any, after: Any, images: Any, kind: parity.Kind) -> str:
    """How a hop went, in a word or with its reason."""
    hop: Hop = parity.compare(kind, before, after, images, kind)
    return hop.verdict if hop.verdict == "passed" else f"{hop.verdict}: {hop.reason}"


def engines(dense: Checkpoint, int8: Checkpoint, shown: Any, folder: Path) -> dict[str, str]:
    """Whether TensorRT-RTX builds an engine of each precision; its bytes are not kept."""
    found = {}
    for name, settings in ENGINES.items():
        path = folder / f"{name}.engine"
        try:
            made = export(int8 if name == "int8" else dense, path, "tensorrt", settings=settings, images=shown)
            found[name] = f"built, {made.settings['layers']}"
        except CompressError as error:
            found[name] = str(error)
        for left in folder.glob(f"{name}.engine*"):
            left.unlink()
    return found


def peer(path: Path, out: Path, images: Any) -> None:
    """What onnxruntime's own quantizer makes of the FP32 file: per channel, uint8 activations, its best here."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Any] = iter(np.split(images, 4))

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {OnnxSession(path.read_bytes())._images: batch}

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(path), str(prepared))
    quantize_static(
        str(prepared), str(out), Reader(), QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    prepared.unlink()


def timed(network: str, asked: argparse.Namespace) -> dict[str, Any]:
    """FP32, our INT8 and onnxruntime's in turns, one thread: their share of FP32's time at each batch."""
    folder, found = place(asked.keep, network), {}
    sides = [side for side in SIDES if (folder / f"{side}.onnx").exists()]
    if "int8" not in sides:
        return {"failed": "there is nothing to time"}
    sessions = [OnnxSession((folder / f"{side}.onnx").read_bytes()) for side in sides]
    for batch in BATCHES:
        images = np.random.default_rng(0).normal(size=(batch, *sessions[0].input_shape)).astype(np.float32)
        runs = [partial(each, images) for each in sessions]
        order = np.random.default_rng(0)
        times = interleave(runs, Effort(seconds=asked.seconds), order, time.perf_counter_ns)
        found[str(batch)] = {side: ratio_interval(times.ratios(number)) for number, side in enumerate(sides) if number}
        if "quantize_static" in sides:
            pairs = zip(times.series[1].samples, times.series[2].samples, strict=True)
            found[str(batch)]["ours over theirs"] = ratio_interval([ours / theirs for ours, theirs in pairs])
    return found


def write(keep: Path) -> None:
    """The table of all that is done."""
    rows = {}
    for network in NETWORKS:
        folder = place(keep, network)
        parts = {task: folder / f"{task}.json" for task in ("check", "time")}
        rows[network] = {task: json.loads(path.read_text()) for task, path in parts.items() if path.exists()}
    made = {"rows": rows, "environment": document.plain(environment(1))}
    storage.write_text(ROOT / "reports" / "matrix.json", json.dumps(made, indent=1) + "\n")
    storage.write_text(ROOT / "reports" / "matrix.md", markdown(made))
    print((ROOT / "reports" / "matrix.md").read_text())


def markdown(made: dict[str, Any]) -> str:
    """The matrix, as a page: a network a row, what failed below."""
    lines = [
        "# Every family through every hop",
        "",
        f"Random weights, 224 pixels (Inception 299); made by `benchmarks/matrix.py` on {made['environment']['cpu']}.",
        "Pruned to half its MACs, reloaded in a fresh process bit for bit, folded, exported, run by ONNX Runtime; INT8 of",
        "the pruned and of the whole network; engines built by TensorRT-RTX for compute capability 8.6. `time` is the",
        "INT8 file's share of FP32's in ONNX Runtime at batch 1 and 8, one thread, and beside it onnxruntime's own `quantize_static`.",
        "",
        "| network | MACs kept | seconds | left alone | hops | INT8 MACs | engines | time, 1 | `quantize_static` | time, 8 | `quantize_static` |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    notes = []
    for network, row in made["rows"].items():
        check, times = row.get("check", {}), row.get("time", {})
        if "hops" not in check:
            lines.append(f"| {network} | {'failed' if check else 'not run'} | | | | | | | | | |")
            notes += [f"- {network}: {check['failed']}"] if check else []
            continue
        passed = sum(each == "passed" for each in check["hops"].values())
        built = sum(each.startswith("built") for each in check["engines"].values())
        integer = "" if check["integer_macs"] is None else f"{check['integer_macs']:.1f} %"
        cells = [network, f"{check['macs']:.3f}", f"{check['prune_seconds']:.1f}", str(len(check["refusals"]))]
        cells += [f"{passed} of {len(check['hops'])}", integer, f"{built} of {len(check['engines'])}"]
        for batch in BATCHES:
            for side in ("int8", "quantize_static"):
                interval = times.get(str(batch), {}).get(side)
                cells.append(f"{interval[1]:.3f}" if interval else "")
        lines.append(f"| {' | '.join(cells)} |")
        broken = {name: each for name, each in check["hops"].items() if each != "passed"}
        broken |= {name: each for name, each in check["engines"].items() if not each.startswith("built")}
        notes += [f"- {network}, {name}: {each}" for name, each in broken.items()]
        notes += [f"- {network}, `quantize_static`: {check['quantize_static']}"] if "quantize_static" in check else []
    return "\n".join([*lines, "", *notes, ""])


if __name__ == "__main__":
    main()
