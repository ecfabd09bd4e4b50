"""Numbers with their unit, their conditions and the machine they were taken on.

A measurement holds raw samples; medians, percentiles, spreads and ratios are computed when they are
read, never stored. `Recording` is the one schema of `measurements.json`: every command that measures
writes it, and reports read it.
"""

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

from compress import document
from compress.architecture import STRICT
from compress.sensitivity import Sensitivity

KIND, FORMAT = "compress measurements", 1
Better = Literal["higher", "lower"]


@dataclass(frozen=True, config=STRICT)
class Metric:
    """What is measured: its unit, which direction is better, and whether two runs give the same number exactly."""

    unit: str
    better: Better
    exact: bool
    meaning: str


METRICS: dict[str, Metric] = {
    "top1": Metric("%", "higher", True, "share of test images whose most likely class is right"),
    "top5": Metric("%", "higher", True, "share of test images whose five most likely classes hold the right one"),
    "latency": Metric("s", "lower", False, "time from a batch of images to its logits"),
    "latency_ratio": Metric(
        "x", "lower", False, "latency over the baseline's, one value a round of the same interleaved run"
    ),
    "throughput": Metric("images/s", "higher", False, "images answered in a second"),
    "device_latency": Metric(
        "s", "lower", False, "time the GPU computes for a batch by its own clock, without the copies to it and back"
    ),
    "load_time": Metric("s", "lower", False, "time to open the file, in a fresh process"),
    "first_inference": Metric(
        "s", "lower", False, "time a fresh process takes for its first batch, after opening the file"
    ),
    "peak_memory": Metric(
        "B", "lower", False, "resident memory a fresh process adds by loading the file and answering one batch"
    ),
    "allocated_memory": Metric(
        "B", "lower", False, "most memory of the GPU that torch held in a fresh process that answered one batch"
    ),
    "device_memory": Metric(
        "B",
        "lower",
        False,
        "memory of the GPU, by NVML's reading, that a fresh process adds by loading the file and answering one batch",
    ),
    "energy": Metric("J", "lower", False, "energy the whole GPU used for an image, by NVML's counter"),
    "size": Metric("B", "lower", True, "size of the file"),
    "compressed_size": Metric("B", "lower", True, "size of the file as gzip packs it"),
    "parameters": Metric("1", "lower", True, "numbers the network has learnt"),
    "macs": Metric("1", "lower", True, "multiply-accumulates for one image"),
    "sparsity": Metric("%", "higher", True, "share of the convolutions' and linear layers' weights that are zero"),
    "integer_macs": Metric(
        "%", "higher", True, "share of the MACs that run in integer kernels in the runtime's own optimised graph"
    ),
}


@dataclass(frozen=True, config=STRICT)
class Environment:
    """The machine and the software of a measurement.

    With the processor's name go how its clock is chosen, where Linux says, and the cores that the process was held to.
    """

    cpu: str
    cores: int
    gpu: str | None
    driver: str | None
    threads: int
    python: str
    system: str
    versions: dict[str, str]
    date: str


def comparable(one: Environment, other: Environment) -> tuple[str, ...]:
    """The fields that differ and keep times of the two from being compared; none where they may be.

    Versions and dates are not among them: whether a new runtime is faster is what a comparison is for.
    """
    return tuple(
        name
        for name in ("cpu", "cores", "gpu", "driver", "system", "threads")
        if getattr(one, name) != getattr(other, name)
    )


@dataclass(frozen=True, config=STRICT)
class Measurement:
    """Samples of one metric of one subject, under stated conditions.

    `conditions` say what else has to be the same for two measurements to be set side by side:
    `runtime`, `batch`, `threads`, `split`, `images`. `values` is never empty and always finite.
    """

    metric: str
    values: tuple[float, ...]
    conditions: dict[str, str | int] = pydantic.Field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric {self.metric!r}; there are {', '.join(METRICS)}")
        highest = 100 if METRICS[self.metric].unit == "%" else math.inf
        if not self.values or not all(math.isfinite(value) and 0 <= value <= highest for value in self.values):
            raise ValueError(f"{self.metric} needs at least one value, every value finite, from 0 to {highest:g}")
        for name in ("batch", "threads", "images"):
            count = self.conditions.get(name, 1)
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} is a count of 1 or more; it is {count!r}")

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return float(statistics.median(self.values))

    def percentile(self, share: float) -> float:
        """The sample below which `share` per cent of the samples lie, 0 to 100."""
        import numpy as np

        return float(np.percentile(self.values, share))


@dataclass(frozen=True, config=STRICT)
class Hop:
    """One comparison of the parity ledger: the candidate after a step against the one before it."""

    name: str
    verdict: Literal["passed", "failed", "void", "skipped"]
    reason: str
    figures: dict[str, float]
    tolerance: dict[str, float]


@dataclass(frozen=True, config=STRICT)
class Layer:
    """One layer of a subject, for the per-layer view: channels, MACs for one image, what was left alone and why.

    `zeros` is the share of zero weights, 0 to 1. Nothing is stored in `seconds`, the time spent in it for one batch,
    and in `sensitivity`, what is lost when about half of this layer alone goes: a report takes the one from the
    entry's profile and the other from its sensitivities, and leaves None where those say nothing.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    macs: int
    zeros: float
    precision: str
    note: str = ""
    seconds: float | None = None
    sensitivity: float | None = None


@dataclass(frozen=True, config=STRICT)
class Node:
    """One kernel a runtime called: the network's layer it belongs to ("" for none), and its seconds for one batch.

    `name`, `operator` and `provider` (which of several backends ran it) are the runtime's own words.
    """

    name: str
    operator: str
    layer: str
    seconds: float
    provider: str = ""


@dataclass(frozen=True, config=STRICT)
class Profile:
    """Where a runtime spends the time of one batch, kernel by kernel: the 25th percentile of several runs.

    `conditions` are those of a latency. Being observed costs time, so the sum is above the latency.
    """

    conditions: dict[str, str | int]
    nodes: tuple[Node, ...]

    @property
    def seconds(self) -> float:
        """The time of all kernels together."""
        return sum(node.seconds for node in self.nodes)

    def layer(self, name: str) -> float | None:
        """The time spent in a layer; None where no kernel is known to belong to it."""
        found = [node.seconds for node in self.nodes if node.layer == name]
        return sum(found) if found else None


def by_operator(nodes: Iterable[Node]) -> dict[str, float]:
    """The seconds of some kernels by their operator, the most first."""
    seconds: dict[str, float] = {}
    for node in nodes:
        seconds[node.operator] = seconds.get(node.operator, 0.0) + node.seconds
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


@dataclass(frozen=True, config=STRICT)
class Curve:
    """What a step measured on the way, one value an epoch: `figures` of a history's record.

    `seen` says that the weights had seen the validation images before, so that their figures show nothing.
    """

    step: str
    figures: dict[str, tuple[float, ...]]
    seen: bool = False


@dataclass(frozen=True, config=STRICT)
class Subject:
    """What was measured: a name for people, the file's digest, and the fingerprint of the checkpoint it comes from."""

    name: str
    digest: str
    fingerprint: str
    network: str
    format: str
    precision: str


@dataclass(frozen=True, config=STRICT)
class Entry:
    """Everything measured about one subject.

    `sensitivities` are those of its checkpoint. `correct` has one character a test image, in the split's order: "1" where top-1 is right, "0" where wrong.
    """

    subject: Subject
    environment: Environment
    measurements: tuple[Measurement, ...] = ()
    parity: tuple[Hop, ...] = ()
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()
    correct: str | None = pydantic.Field(default=None, pattern="^[01]+$")
    curves: tuple[Curve, ...] = ()
    # Left out where there are none: a report's digest is of its content, and older reports do not have these.
    profile: Profile | None = pydantic.Field(default=None, exclude_if=lambda profile: profile is None)
    sensitivities: tuple[Sensitivity, ...] = pydantic.Field(default=(), exclude_if=lambda found: not found)


@dataclass(frozen=True, config=STRICT)
class Recording:
    """`measurements.json`: the entries of one or more commands; entries of one subject are joined when read."""

    entries: tuple[Entry, ...]


def read(path: Path) -> Recording:
    """Read a `measurements.json`."""
    return document.read(path, KIND, FORMAT, Recording)


def write(path: Path, recording: Recording) -> None:
    """Write a `measurements.json`, whole or not at all."""
    document.write(path, KIND, FORMAT, recording)
