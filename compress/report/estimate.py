"""One figure with the interval that its samples allow, as gates and comparisons judge it."""

import math
from dataclasses import dataclass

from compress.measurement import METRICS, Measurement
from compress.report import figures
from compress.report.comparison import speedup

TIMES = ("s", "images/s", "J")
"""Units of what depends on the machine."""
FRESH = ("peak_memory", "allocated_memory", "device_memory", "load_time", "first_inference", "energy")
"""Metrics with few samples, most of them from processes of their own."""


@dataclass(frozen=True)
class Estimate:
    """A number between the ends of its interval (both are itself where it is exact), and what there is to say of it."""

    value: float
    low: float
    high: float
    remark: str = ""


def estimate(measurement: Measurement, percentile: int = 50) -> Estimate:
    """A figure by itself: exact as it is, what fresh processes gave by its extremes, a time by a percentile's interval."""
    metric = METRICS[measurement.metric]
    if metric.exact:
        return exact(measurement.median)
    count = f"{len(measurement.values):,} sample{'s' if len(measurement.values) > 1 else ''}"
    if measurement.metric in FRESH:
        return Estimate(measurement.median, min(measurement.values), max(measurement.values), count)
    interval = figures.quantile_interval(measurement.values, percentile / 100)
    return Estimate(measurement.percentile(percentile), interval.low, interval.high, count)


def exact(value: float, remark: str = "") -> Estimate:
    """A figure that has no interval."""
    return Estimate(value, value, value, remark)


def quotient(one: Estimate, other: Estimate) -> Estimate:
    """The ratio of two figures, with the widest interval that the two allow."""
    low = max(one.low, 0.0) / other.high
    high = one.high / other.low if other.low > 0 else math.inf
    return Estimate(one.value / other.value, low, high, one.remark)


def faster(ratios: Measurement) -> Estimate:
    """Times faster than the baseline, of the latency ratios of an interleaved run."""
    value, interval = speedup(ratios.values)
    return Estimate(value, interval.low, interval.high, f"{len(ratios.values):,} rounds")
