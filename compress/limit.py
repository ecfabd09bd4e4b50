"""What a gate demands of one figure, as a value: `{metric: size, max: 500KB}`.

It stands in a limits file, in a recipe's `gate:` section, and behind the gate's options on the command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pydantic

from compress import quantity, yaml_file
from compress.errors import unknown
from compress.measurement import METRICS, Metric

Quantity = str | int | float
"""A number with its unit, as people write it: 500KB, 2ms, 0.5pp, 3x."""

LIMITED: Mapping[str, Metric] = {name: metric for name, metric in METRICS.items() if name != "latency_ratio"} | {
    "parity": Metric("%", "higher", True, "share of the parity ledger's hops that passed; a skipped one did not"),
}
"""What can be limited: what is measured, and the parity ledger as a whole."""

RELATIVE = ("max_drop", "max_ratio", "min_ratio", "min_speedup")
BOUNDS = {
    "max": "at most",
    "min": "at least",
    "max_drop": "drop at most",
    "max_ratio": "ratio at most",
    "min_ratio": "ratio at least",
    "min_speedup": "speed-up at least",
}
"""Every kind of bound, and what it says."""


@dataclass(frozen=True)
class Bound:
    """How far a figure may go: `value` in `unit`, and whether the figure has to stay below it."""

    name: str
    value: float
    unit: str
    upper: bool

    def keeps(self, figure: float) -> bool:
        """Whether a figure is within the bound; the bound itself is."""
        return figure <= self.value if self.upper else figure >= self.value


def conditions(metric: str) -> tuple[str, ...]:
    """The conditions that a metric's figures differ by, and a limit on it may name."""
    if metric in ("size", "compressed_size", "parameters", "macs", "sparsity", "parity"):
        return ()
    return ("runtime",) if metric in ("top1", "top5", "integer_macs", "load_time") else ("runtime", "batch")


def _unit(bound: str, metric: str) -> str:
    return "pp" if bound == "max_drop" else "x" if bound in RELATIVE else LIMITED[metric].unit


class Limit(pydantic.BaseModel):
    """One demand: a metric, exactly one bound, and where it holds.

    A limit that names no candidate holds for each of them, one that names no runtime or batch for every
    one that was measured.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metric: str
    """What is limited: top1, latency, size, peak_memory, ..., or parity."""
    max: Quantity | None = None
    """Highest value allowed, with its unit: 500KB, 2ms."""
    min: Quantity | None = None
    """Lowest value allowed, with its unit: 91%."""
    max_drop: Quantity | None = None
    """Most points an accuracy may lie below the baseline's: 0.5pp."""
    max_ratio: Quantity | None = None
    """Largest multiple of the baseline's value: 0.5x."""
    min_ratio: Quantity | None = None
    """Smallest multiple of the baseline's value: 0.9x."""
    min_speedup: Quantity | None = None
    """How many times faster than the baseline it has to be, in the same interleaved run: 2x. For latency only."""
    percentile: int = pydantic.Field(default=50, ge=1, le=99)
    """Which percentile of a latency `max` and `min` are about."""
    candidate: str | None = None
    """The candidate's name, or the start of its digest; left out, every candidate."""
    runtime: str | None = None
    """The runtime; left out, every one measured."""
    batch: int | None = pydantic.Field(default=None, ge=1)
    """The batch size; left out, every one measured."""
    against: str | None = None
    """A recorded report, relative to the limits file: relative bounds are then against the subject of the same name in it."""
    level: Literal["error", "warn"] = "error"
    """Whether breaking it fails the gate, or is only said."""

    @pydantic.field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in LIMITED:
            raise ValueError(str(unknown("metric", name, LIMITED)))
        return name

    @pydantic.field_validator(*BOUNDS)
    @classmethod
    def _readable(cls, text: Quantity | None, info: pydantic.ValidationInfo) -> Quantity | None:
        if text is not None and info.field_name and "metric" in info.data:
            value = quantity.parse(text, _unit(info.field_name, info.data["metric"]))
            if value < 0 or (value == 0 and info.field_name not in ("max", "min", "max_drop")):
                raise ValueError(f"{text} is no bound for {info.data['metric']}: it has to be above zero.")
        return text

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "Limit":
        given = [name for name in BOUNDS if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"it has {' and '.join(given)}" if given else "it has none"
            raise ValueError(f"a limit needs exactly one of {', '.join(BOUNDS)}; {found}.")
        for name in ("runtime", "batch"):
            if getattr(self, name) is not None and name not in conditions(self.metric):
                raise ValueError(f"{self.metric} is the same for every {name}; leave {name} out.")
        if self.metric == "parity" and given[0] != "min":
            raise ValueError("parity is a share of hops that passed; limit it with min, as in min: 100%.")
        if given[0] == "max_drop" and LIMITED[self.metric].unit != "%":
            raise ValueError(f"max_drop is for percentages such as top1; limit {self.metric} with max or max_ratio.")
        if given[0] == "min_speedup" and self.metric != "latency":
            raise ValueError(f"min_speedup is for latency; limit {self.metric} with max_ratio or min_ratio.")
        if self.percentile != 50 and (self.metric != "latency" or given[0] in RELATIVE):
            raise ValueError("percentile is for max and min of latency: ratios are of medians.")
        if self.against and given[0] not in RELATIVE:
            raise ValueError(
                f"{given[0]} is absolute and needs no report to be against; use one of {', '.join(RELATIVE)}."
            )
        return self

    @property
    def bound(self) -> Bound:
        """The one bound it has."""
        name = next(name for name in BOUNDS if getattr(self, name) is not None)
        unit = _unit(name, self.metric)
        return Bound(name, quantity.parse(getattr(self, name), unit), unit, name.startswith("max"))

    def __str__(self) -> str:
        absolute = self.bound.name in ("max", "min")
        metric = (
            f"p{self.percentile} latency" if self.metric == "latency" and absolute else self.metric.replace("_", " ")
        )
        given = getattr(self, self.bound.name)
        against = f" against {self.against}" if self.against else ""
        return f"{metric}: {BOUNDS[self.bound.name]} {given}{against}"


class LimitsFile(pydantic.BaseModel):
    """A file of limits: one key, `limits`, and a list."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    limits: tuple[Limit, ...]


def read(path: Path) -> tuple[Limit, ...]:
    """Read a limits file; errors name line, column, key and the nearest key that exists."""
    return yaml_file.read_yaml(path, LimitsFile).limits


@dataclass(frozen=True)
class Preset:
    """Limits that others have set, what they are for, and where they say so."""

    limits: tuple[Limit, ...]
    meaning: str
    source: str


PRESETS: Mapping[str, Preset] = {
    "mlperf-tiny-ic": Preset(
        (Limit(metric="top1", min="85%"),),
        "MLPerf Tiny's image classification (a ResNet-8 on CIFAR-10): at least 85 % top-1",
        "https://mlcommons.org/benchmarks/inference-tiny/",
    ),
}
"""Limits by name."""


def preset(name: str) -> tuple[Limit, ...]:
    """The limits of that name; raises UsageError with the nearest names."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name].limits
