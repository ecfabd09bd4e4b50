"""Recordings as a run of ResNet-20 on CIFAR-10 leaves them, made by the real classes."""

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np

from compress import measurement, storage
from compress.measurement import Curve, Entry, Environment, Hop, Layer, Measurement, Recording, Subject
from compress.report import report as reports
from compress.report.report import Report

MACHINE = Environment(
    cpu="Intel Xeon 8481C", cores=2, gpu=None, driver=None, threads=1, python="3.12.4", system="Linux x86_64",
    versions={"torch": "2.15.0", "onnxruntime": "1.31.0"}, date="2026-01-15T09:30:00+00:00",
)  # fmt: skip
OTHER_MACHINE = Environment(
    cpu="AMD EPYC 9B14", cores=8, gpu=None, driver=None, threads=1, python="3.12.4", system="Linux x86_64",
    versions={"torch": "2.15.0", "onnxruntime": "1.31.0"}, date="2026-02-01T10:00:00+00:00",
)  # fmt: skip
IMAGES = 10_000
HOPS = (
    Hop(
        "prune",
        "passed",
        "the narrowed network is the masked one",
        {"normalised_max_error": 3.1e-7},
        {"normalised_max_error": 1e-4},
    ),
    Hop("export", "passed", "", {"normalised_max_error": 2.4e-6}, {"normalised_max_error": 1e-4}),
    Hop("tensorrt", "skipped", "tensorrt is not installed", {}, {}),
)


def digest(name: str) -> str:
    return storage.digest_bytes(name.encode())


def around(median: float, spread: float, count: int, seed: int = 0) -> tuple[float, ...]:
    """So many samples of a lognormal law, evenly over its quantiles; another seed gives others next to them."""
    law = NormalDist(seed * 1e-4, spread)
    return tuple(median * math.exp(law.inv_cdf((each + 0.5) / count)) for each in range(count))


def answers(accuracy: float, flips: float = 0.0, images: int = IMAGES, seed: int = 0) -> str:
    """Answers of a network with that accuracy in per cent; `flips` of them differ from those of `flips=0`."""
    rng = np.random.default_rng(seed)
    right = np.zeros(images, dtype=bool)
    right[: round(images * accuracy / 100)] = True
    rng.shuffle(right)
    changed = round(images * flips / 2)
    right[rng.choice(np.flatnonzero(right), changed, replace=False)] = False
    right[rng.choice(np.flatnonzero(~right), changed, replace=False)] = True
    return "".join("1" if each else "0" for each in right)


def layers(keep: float, precision: str) -> tuple[Layer, ...]:
    """The layers of ResNet-20 with a share of the inner channels kept."""
    found = [Layer("stem.conv", "conv 3x3", 3, 16, 442368, 0.0, precision, "its outputs are added to every block's")]
    for stage, (channels, side) in enumerate(((16, 32), (32, 16), (64, 8)), 1):
        for block in range(3):
            inner = int(channels * keep)
            inputs = channels // 2 if block == 0 and stage > 1 else channels
            for number, (before, after) in enumerate(((inputs, inner), (inner, channels)), 1):
                found.append(
                    Layer(
                        f"stage{stage}.{block}.conv{number}",
                        "conv 3x3",
                        before,
                        after,
                        9 * before * after * side**2,
                        0.0,
                        precision,
                    )
                )
    return (*found, Layer("classifier", "linear", 64, 10, 640, 0.0, precision, "its outputs are the classes"))


def entry(
    name: str = "resnet20-fp32", *, accuracy: float = 91.73, flips: float = 0.0, speedup: float = 1.0, size: int = 1_091_000,
    precision: str = "fp32", keep: float = 1.0, samples: int = 200, rounds: int = 30, environment: Environment = MACHINE,
    baseline: str = "resnet20-fp32", integer: float | None = None, seed: int = 0, **more: object,
) -> Entry:  # fmt: skip
    """One subject as evaluate, parity and benchmark record it; `speedup` is over the baseline, at every batch."""
    correct = answers(accuracy, flips)
    found = [
        Measurement(
            "top1", (100 * correct.count("1") / IMAGES,), {"runtime": "onnxruntime", "split": "test", "images": IMAGES}
        ),
        Measurement("size", (size,)),
        Measurement("parameters", (round(272_474 * keep),)),
        Measurement("macs", (sum(layer.macs for layer in layers(keep, precision)),)),
        Measurement("peak_memory", (round(9e6 + 4 * size),), {"runtime": "onnxruntime", "batch": 64}),
    ]
    if integer is not None:
        found.append(Measurement("integer_macs", (integer,), {"runtime": "onnxruntime"}))
    for batch, seconds in ((1, 0.52e-3), (64, 26.8e-3)):
        conditions: dict[str, str | int] = {"runtime": "onnxruntime", "device": "cpu", "batch": batch, "threads": 1}
        found.append(Measurement("latency", around(seconds / speedup, 0.02, samples, seed), conditions))
        if name != baseline:
            ratios = around(1 / speedup, 0.01, rounds, seed)
            found.append(Measurement("latency_ratio", ratios, {**conditions, "baseline": digest(baseline)}))
    subject = Subject(name, digest(name), digest(name + " checkpoint"), "resnet20", "onnx", precision)
    given = {"measurements": tuple(found), "layers": layers(keep, precision), "correct": correct, **more}
    return Entry(subject, environment, **given)  # type: ignore[arg-type]


def int8(**changes: object) -> Entry:
    """The INT8 candidate: no difference in accuracy, 2.2 times as fast."""
    given = {
        "accuracy": 91.75,
        "flips": 0.005,
        "speedup": 2.2,
        "size": 303_000,
        "precision": "int8",
        "integer": 100.0,
        "parity": HOPS,
    }
    return entry("resnet20-int8", **{**given, **changes})  # type: ignore[arg-type]


def pruned(**changes: object) -> Entry:
    """The pruned INT8 candidate: 0.83 points lost, 3.9 times as fast."""
    curve = Curve(
        "train",
        {
            "train_loss": (1.21, 0.80, 0.66, 0.58, 0.53, 0.49, 0.46, 0.44),
            "train_top1": (71.0, 80.2, 83.9, 86.0, 87.7, 88.9, 89.8, 90.2),
            "validation_top1": (76.1, 82.0, 85.1, 86.9, 88.8, 89.9, 90.7, 90.9),
            "rate": (0.05, 0.048, 0.043, 0.035, 0.025, 0.015, 0.007, 0.002),
        },
        seen=True,
    )
    note = "the weights have seen the validation images: validation figures say nothing of new images"
    given = {
        "accuracy": 90.90, "flips": 0.03, "speedup": 3.9, "size": 171_000, "precision": "int8", "keep": 0.5, "integer": 99.6,
        "notes": (note,), "curves": (curve,), "parity": HOPS[:2],
    }  # fmt: skip
    return entry("resnet20-half-int8", **{**given, **changes})  # type: ignore[arg-type]


def write(path: Path, *entries: Entry) -> Path:
    """A measurements.json as a command writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    measurement.write(path, Recording(entries))
    return path


def run(folder: Path, *entries: Entry) -> Path:
    """A run's folder: its recording and its recipe."""
    write(folder / "measurements.json", *(entries or (entry(), int8(), pruned())))
    (folder / "recipe.yaml").write_text(
        "network: {name: resnet20}\nsteps:\n  - prune: {macs: 0.5}\n  - fold\n  - quantize\n"
    )
    return folder


def report(folder: Path, *entries: Entry) -> Report:
    """The report of some entries, or of the baseline and the INT8 candidate."""
    return reports.from_recordings([write(folder / "measurements.json", *(entries or (entry(), int8())))])


def forty(folder: Path) -> Report:
    """Forty candidates with 1,000 samples of each time."""
    entries = [entry(samples=1000)]
    for number in range(40):
        entries.append(
            entry(
                f"candidate-{number:02d}", accuracy=91.8 - number * 0.12, flips=0.02, speedup=1 + number * 0.15, precision="int8",
                size=round(1e6 / (1 + number * 0.1)), samples=1000, rounds=1000, keep=0.5, parity=HOPS, integer=99.0,
            )
        )  # fmt: skip
    return reports.from_recordings([run(folder, *entries)])
