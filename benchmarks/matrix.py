"""Every family of CNN through pruning, reloading, folding, ONNX, INT8 and TensorRT, with parity at every hop.

    python benchmarks/matrix.py check --keep FOLDER
    python benchmarks/matrix.py qat --keep FOLDER
    python benchmarks/matrix.py time --keep FOLDER
    python benchmarks/matrix.py write --keep FOLDER

`check` takes each network through the hops in a process of its own, with a time limit; `qat` trains each on its
integers for a few steps, at 96 pixels; `time`, on a quiet machine, sets INT8 beside FP32 and onnxruntime's own
quantizer; `write` puts all in `reports/matrix.*`. All keep what is done in FOLDER and go on after a kill. Weights are
random behind batch norms that know their inputs, as no file of trained ones is at hand: what is shown is that every
hop holds, and what it costs, not accuracy.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families import NETWORKS, blotches, lively, with_classifier
from quantize_peers import onnxruntime_static
from torch import Tensor

from compress import checkpoint, document, parity, storage
from compress.build import build, structure
from compress.checkpoint import Checkpoint
from compress.data.normalise import normalise
from compress.device import use
from compress.environment import environment
from compress.errors import CompressError
from compress.export import export
from compress.export.settings import Settings
from compress.fold.step import Fold
from compress.importing import import_checkpoint
from compress.interleave import Effort, interleave
from compress.interval import latency_interval
from compress.macs import macs
from compress.measurement import Hop
from compress.pipeline import Resources
from compress.prune.step import Prune
from compress.quantize.qat_step import ConvertQAT, PrepareQAT
from compress.quantize.step import Quantize
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.torch import TorchSession
from compress.train.step import Train

ROOT = Path(__file__).parents[1]
LIMIT = 1800
"""Seconds after which a network's process is ended."""
SHOWN, CALIBRATED = 64, 16
"""Images that each hop is compared on, and that INT8 is calibrated on."""
BATCHES = (1, 8)
LOST_SOON = ("timm:repvgg_a0", "timm:darknet53")
"""Random weights that nine steps at the rate of the others leave with one answer for all images."""
SIDES = ("fp32", "int8", "quantize_static")
ENGINES: dict[str, Settings] = {
    name: Settings(precision=name if name == "fp16" else None, compute_capability="8.6", batches=(1, 8, 8))
    for name in ("fp32", "fp16", "int8")
}


def main() -> None:
    """Check, time, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*APART, "time", "write", "digest"])
    parser.add_argument("--here", action="store_true", help="one network, in this process")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=12.0, help="longest time for one batch size of one network")
    asked = parser.parse_args()
    use("cpu", asked.threads)
    if asked.task == "digest":
        print(digest(checkpoint.load(asked.keep)))
    elif asked.here:
        print(json.dumps(APART[asked.task](asked.networks[0], asked.keep)))
    elif asked.task == "write":
        write(asked.keep)
    else:
        for network in asked.networks:
            kept = place(asked.keep, network) / f"{asked.task}.json"
            if not kept.exists():
                found = apart(network, asked) if asked.task in APART else timed(network, asked)
                storage.folder(kept.parent)
                storage.write_text(kept, json.dumps(found, indent=1) + "\n")
                print(network, found.get("failed") or json.dumps(found)[:300], flush=True)


def place(keep: Path, network: str) -> Path:
    """The folder of a network's files."""
    return keep / network.replace(":", "-")


def apart(network: str, asked: argparse.Namespace) -> dict[str, Any]:
    """What a task finds, in a process of its own."""
    words = [sys.executable, __file__, asked.task, "--here", "--keep", str(asked.keep), "--networks", network]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {LIMIT} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def checked(network: str, keep: Path) -> dict[str, Any]:
    """Take a network through every hop; the files that are timed later stay in its folder."""
    folder = storage.folder(place(keep, network))
    base, resources, images, labels = begin(network, keep, 299 if "inception" in network else 224)
    shown = images.numpy()[:SHOWN]
    found: dict[str, Any] = {"hops": {}}
    hops: dict[str, Any] = found["hops"]

    begun = time.monotonic()
    try:
        pruned = Prune(macs=0.5, images=64)(base, resources)
    except CompressError as error:
        found["channels refused"] = str(error)
        pruned = Prune(structure="blocks", macs=0.5, images=64)(base, resources)
    found["prune_seconds"] = time.monotonic() - begun
    input_shape = base.architecture.input_shape
    found["macs"] = macs(structure(pruned.architecture), input_shape) / macs(structure(base.architecture), input_shape)
    found["refusals"] = [f"{refusal.layer}: {refusal.reason}" for refusal in pruned.history[-1].refusals]
    pruned = with_classifier(pruned, images, labels)
    path = folder / "pruned.safetensors"
    checkpoint.save(pruned, path)
    hops["reloaded"] = "passed" if digest(pruned) == digest_apart(path) else "other logits in a fresh process"
    path.unlink()
    folded = Fold()(pruned, resources)
    hops["folded"] = verdict(session(pruned), session(folded), shown, "exact")
    hops["onnx"] = verdict(session(folded), file(folded, folder / "pruned.onnx"), shown, "exact")
    small = Quantize(images=CALIBRATED, batch=CALIBRATED)(folded, resources)
    hops["pruned INT8"] = verdict(session(small), file(small, folder / "pruned-int8.onnx", False), shown, "integer")

    dense = Fold()(base, resources)
    whole = file(dense, folder / "fp32.onnx")
    hops["dense onnx"] = verdict(session(dense), whole, shown, "exact")
    int8 = Quantize(images=CALIBRATED, batch=CALIBRATED)(dense, resources)
    hops["INT8"] = verdict(session(int8), file(int8, folder / "int8.onnx", False), shown, "integer")
    found["integer_macs"] = OnnxSession((folder / "int8.onnx").read_bytes()).integer_macs()
    found["left_in_float"] = [f"{refusal.layer}: {refusal.reason}" for refusal in int8.history[-1].refusals]
    found["engines"] = engines(
        dense, Quantize(target="tensorrt", images=CALIBRATED, batch=CALIBRATED)(dense, resources), shown, folder
    )
    try:
        theirs = onnxruntime_static((folder / "fp32.onnx").read_bytes(), np.split(shown, 4), per_channel=True)
        storage.write_bytes(folder / "quantize_static.onnx", theirs)
    except Exception as error:  # whatever the other tool raises is its own
        found["quantize_static"] = f"{type(error).__name__}: {error}"
    return found


def trained(network: str, keep: Path) -> dict[str, Any]:
    """Train a network on the integers of ONNX Runtime for an epoch of nine steps, and convert it."""
    base, resources, images, _ = begin(network, keep, 96)
    shown = images.numpy()[:SHOWN]
    begun = time.monotonic()
    prepared = PrepareQAT(images=CALIBRATED, batch=CALIBRATED)(base, resources)
    rate = 1e-6 if network in LOST_SOON else 1e-4
    learnt = Train(epochs=1, batch=16, rate=rate, distillation=0.9)(prepared, resources)
    converted = ConvertQAT()(learnt, resources)
    path = storage.folder(place(keep, network)) / "qat.onnx"
    hops = {
        "trained on integers": verdict(session(learnt), session(converted), shown, "exact"),
        "its file": verdict(session(converted), file(converted, path, False), shown, "integer"),
    }
    share = OnnxSession(path.read_bytes()).integer_macs()
    path.unlink()
    left = [f"{refusal.layer}: {refusal.reason}" for refusal in prepared.history[-1].refusals]
    return {"hops": hops, "integer_macs": share, "left_in_float": left, "seconds": time.monotonic() - begun}


APART = {"check": checked, "qat": trained}


def begin(network: str, keep: Path, side: int) -> tuple[Checkpoint, Resources, Tensor, Tensor]:
    """A network, what its steps may use, and 64 images (N, C, H, W) with their classes (N)."""
    data = blotches(keep, side)
    pixels, labels = next(data.learning.calibration.batches(64))
    images = normalise(pixels, data.spec.preprocessing)
    base = lively(import_checkpoint(None, network, data.spec), images, labels)
    return base, Resources(data.learning, teacher=base), images, labels


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
        found[str(batch)] = {
            side: latency_interval(times.ratios(number)) for number, side in enumerate(sides) if number
        }
        if "quantize_static" in sides:
            pairs = zip(times.series[1].samples, times.series[2].samples, strict=True)
            found[str(batch)]["ours over theirs"] = latency_interval([ours / theirs for ours, theirs in pairs])
    return found


def write(keep: Path) -> None:
    """The table of all that is done."""
    rows = {}
    for network in NETWORKS:
        folder = place(keep, network)
        parts = {task: folder / f"{task}.json" for task in (*APART, "time")}
        rows[network] = {task: json.loads(path.read_text()) for task, path in parts.items() if path.exists()}
    made = {"rows": rows, "environment": document.plain(environment(1))}
    storage.write_text(ROOT / "reports" / "matrix.json", json.dumps(made, indent=1) + "\n")
    storage.write_text(ROOT / "reports" / "matrix.md", markdown(made))
    print((ROOT / "reports" / "matrix.md").read_text())


def markdown(made: dict[str, Any]) -> str:
    """The matrix, as a page: a network a row, what failed below."""
    lines = [
        "# Families of CNNs through every hop",
        "",
        f"Random weights, 224 pixels (Inception 299); made by `benchmarks/matrix.py` on {made['environment']['cpu']}.",
        "Pruned to half its MACs, reloaded in a fresh process bit for bit, folded, exported, run by ONNX Runtime; INT8 of",
        "the pruned and of the whole network; engines built by TensorRT-RTX for compute capability 8.6. `time` is the",
        "INT8 file's share of FP32's in ONNX Runtime at batch 1 and 8, one thread, and beside it onnxruntime's own `quantize_static`.",
        "`QAT`: trained on its integers for nine steps at 96 pixels, converted and exported; hops that held, and integer MACs.",
        "",
        "| network | MACs kept | seconds | left alone | hops | INT8 MACs | QAT | engines | time, 1 | `quantize_static` | time, 8 | `quantize_static` |",
        f"|{' --- |' * 12}",
    ]
    notes = []
    for network, row in made["rows"].items():
        check, qat, times = row.get("check", {}), row.get("qat", {}), row.get("time", {})
        if "hops" not in check:
            lines.append(f"| {network} | {'failed' if check else 'not run'} | | | | | | | | | | |")
            notes += [f"- {network}: {check['failed']}"] if check else []
            continue
        passed = sum(each == "passed" for each in check["hops"].values())
        built = sum(each.startswith("built") for each in check["engines"].values())
        integer = "" if check["integer_macs"] is None else f"{check['integer_macs']:.1f} %"
        cells = [network, f"{check['macs']:.3f}", f"{check['prune_seconds']:.1f}", str(len(check["refusals"]))]
        cells += [f"{passed} of {len(check['hops'])}", integer, of_qat(qat), f"{built} of {len(check['engines'])}"]
        for batch in BATCHES:
            for side in ("int8", "quantize_static"):
                interval = times.get(str(batch), {}).get(side)
                cells.append(f"{interval[1]:.3f}" if interval else "")
        lines.append(f"| {' | '.join(cells)} |")
        broken = {name: each for name, each in (check["hops"] | qat.get("hops", {})).items() if each != "passed"}
        broken |= {"QAT": qat["failed"]} if "failed" in qat else {}
        broken |= {name: each for name, each in check["engines"].items() if not each.startswith("built")}
        if "channels refused" in check:
            broken["blocks went, not channels"] = check["channels refused"]
        notes += [f"- {network}, {name}: {each}" for name, each in broken.items()]
        notes += [f"- {network}, `quantize_static`: {check['quantize_static']}"] if "quantize_static" in check else []
    return "\n".join([*lines, "", *notes, ""])


def of_qat(found: dict[str, Any]) -> str:
    """A network's training on integers, in a cell."""
    if "hops" not in found:
        return "failed" if found else ""
    held = sum(each == "passed" for each in found["hops"].values())
    return f"{held} of {len(found['hops'])}, {found['integer_macs']:.1f} %"


if __name__ == "__main__":
    main()
