"""What a report says: each candidate set against the baseline, every difference computed from the samples."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from compress.interval import latency_interval
from compress.measurement import Measurement
from compress.quantity import show
from compress.report import figures
from compress.report.candidate import Candidate, Sample
from compress.report.figures import Interval, Paired
from compress.report.report import Report

Conditions = dict[str, str | int]


@dataclass(frozen=True)
class Accuracy:
    """A top-1 accuracy in per cent, its interval, and how it differs from the baseline's, in points."""

    value: float
    interval: Interval | None
    change: float | None = None
    paired: Paired | None = None

    @property
    def finding(self) -> str:
        """What the difference from the baseline amounts to: shown, not shown, or not tested."""
        if self.change is None:
            return ""
        if self.paired is None:
            return "not tested: no answers image by image"
        p = f"p = {self.paired.p:.2g}" if self.paired.p >= 0.001 else "p < 0.001"
        low, high = self.paired.interval.low, self.paired.interval.high
        return f"{low:+.2f} to {high:+.2f}, {'' if self.paired.shown else 'no '}difference shown, {p}"


@dataclass(frozen=True)
class Speed:
    """A latency under one set of conditions, and how many times faster than the baseline it is."""

    sample: Sample
    throughput: Measurement | None
    ratio: Measurement | None

    @property
    def conditions(self) -> Conditions:
        """Runtime, batch and threads it was taken with."""
        return self.sample.measurement.conditions

    @property
    def key(self) -> tuple[tuple[str, str | int], ...]:
        """The conditions as something to compare and count by."""
        return tuple(sorted(self.conditions.items()))

    @property
    def batch(self) -> int:
        """Images at a time."""
        return int(self.conditions.get("batch", 1))

    @cached_property
    def speedup(self) -> tuple[float, Interval] | None:
        """The baseline's latency over this one's in the same interleaved run, with its interval."""
        return speedup(self.ratio.values) if self.ratio else None

    @property
    def images_per_second(self) -> float:
        """The throughput recorded, or what the median latency comes to."""
        if self.throughput:
            return self.throughput.median
        seconds = self.sample.measurement.median
        return self.batch / seconds if seconds else math.inf

    @property
    def finding(self) -> str:
        """What the speed-up amounts to: how many times faster or slower, not shown, or not to be told."""
        if self.speedup is None:
            return ""
        value, interval = self.speedup
        if not interval.bounded:
            return "too few rounds to tell"
        if interval.holds(1):
            return "no difference shown"
        if show(value, "x") == "1.00x":
            return "equal within 0.5 %"
        return f"{show(value, 'x')} faster" if value > 1 else f"{show(1 / value, 'x')} slower"


@dataclass(frozen=True)
class Row:
    """One subject with its figures; `number` is its place in the report, 0 the baseline."""

    number: int
    candidate: Candidate
    accuracy: Accuracy | None
    speeds: tuple[Speed, ...]

    @property
    def name(self) -> str:
        """What people call it."""
        return self.candidate.subject.name

    def median(self, metric: str) -> float | None:
        """The median of the first sample of a metric, or None where it was not measured."""
        found = self.candidate.find(metric)
        return found[0].measurement.median if found else None

    def speed(self, like: Speed | None) -> Speed | None:
        """The row's speed under the conditions of another, or None where it was not timed so."""
        return next((speed for speed in self.speeds if like and speed.key == like.key), None)


def rows(report: Report) -> tuple[Row, ...]:
    """Every subject of the report with its figures against the baseline, which comes first."""
    baseline = report.candidates[0]
    return tuple(
        Row(number, candidate, _accuracy(candidate, baseline), _speeds(candidate, report.baseline))
        for number, candidate in enumerate(report.candidates)
    )


def headline(compared: Iterable[Row]) -> Speed | None:
    """Under which conditions speed is seen at a glance: those that most were timed under, of these the largest batch."""
    every = [speed for row in compared for speed in row.speeds]
    counts = Counter(speed.key for speed in every)
    return max(every, key=lambda speed: (counts[speed.key], speed.batch), default=None)


def speedup(ratios: Sequence[float]) -> tuple[float, Interval]:
    """Times faster than the baseline: one over the median of the interleaved latency ratios, and its interval."""
    low, median, high = latency_interval(ratios)
    return 1 / median, Interval(1 / high, 1 / low if low else math.inf)


def pair(sample: Sample, reference: Sample | None) -> Paired | None:
    """The paired test of two accuracies, where both recorded their answers to the same images."""
    if (
        reference is None
        or not sample.correct
        or not reference.correct
        or len(sample.correct) != len(reference.correct)
    ):
        return None
    return figures.paired(reference.correct, sample.correct)


def under(conditions: Conditions, names: Sequence[str] = ("runtime", "device", "batch", "threads")) -> str:
    """Conditions in words: "onnxruntime, batch 64, 1 thread"."""
    threads = "{} thread" if conditions.get("threads") == 1 else "{} threads"
    words = {"runtime": "{}", "device": "{}", "batch": "batch {}", "threads": threads}
    return ", ".join(words.get(name, name + " {}").format(conditions[name]) for name in names if name in conditions)


def _accuracy(candidate: Candidate, baseline: Candidate) -> Accuracy | None:
    tested = (each for each in candidate.find("top1") if each.measurement.conditions.get("split", "test") == "test")
    sample = next(tested, None)
    if sample is None:
        return None
    value = sample.measurement.median
    images = len(sample.correct) if sample.correct else int(sample.measurement.conditions.get("images", 0))
    interval = figures.accuracy_interval(value, images) if images else None
    reference = baseline.counterpart(sample) if candidate is not baseline else None
    change = value - reference.measurement.median if reference else None
    return Accuracy(value, interval, change, pair(sample, reference))


def _speeds(candidate: Candidate, baseline: str) -> tuple[Speed, ...]:
    found = []
    for sample in candidate.find("latency"):
        conditions = sample.measurement.conditions
        throughput = next((each.measurement for each in candidate.find("throughput", **conditions)), None)
        ratios = [each.measurement for each in candidate.find("latency_ratio", **conditions)]
        ratio = next((each for each in ratios if each.conditions.get("baseline", baseline) == baseline), None)
        found.append(Speed(sample, throughput, ratio))
    return tuple(found)
