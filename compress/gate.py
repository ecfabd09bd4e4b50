"""A gate: limits held against a report, and what keeps to them.

    results = check(report, limits)
    violations(results)      # the empty list is a pass

Exact figures (size, parameters, MACs, accuracy on the test images) are judged as they stand, measured ones
by their interval: within the limit at both ends is a pass, beyond it at both ends a failure, and anything
else inconclusive. What was not measured fails.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pydantic.dataclasses

from compress.architecture import STRICT
from compress.errors import CheckFailed, Inconclusive, UsageError, unknown
from compress.limit import Bound, Limit
from compress.measurement import METRICS, Environment, Measurement, comparable
from compress.report import figures
from compress.report import report as reports
from compress.report.candidate import Candidate, Sample, called
from compress.report.comparison import pair, speedup, under
from compress.report.report import Report

__all__ = ["EXIT_CODES", "Limit", "Outcome", "Result", "Status", "check", "outcome", "references", "violations"]

Status = Literal["passed", "failed", "inconclusive", "missing", "incomparable"]
Outcome = Literal["passed", "failed", "inconclusive"]
TIMES = ("s", "images/s")
FRESH = ("peak_memory", "load_time")
"""Metrics with few samples, each from a process of its own."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Result:
    """What one limit says of one figure of one candidate.

    `value`, `low`, `high` and `bound` are in `unit`; an end without enough samples is None. `margin` is how
    much room is left to the bound in that unit, negative where it is broken.
    """

    status: Status
    level: Literal["error", "warn"]
    candidate: str
    limit: str
    conditions: str
    unit: str
    bound: float
    value: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class _Figure:
    """A number to judge, between the ends of its interval (both are itself where it is exact)."""

    value: float
    low: float
    high: float
    remark: str = ""


def check(
    report: Report,
    limits: Sequence[Limit],
    references: Mapping[str, Report] | None = None,
    here: Environment | None = None,
) -> tuple[Result, ...]:
    """Hold limits against a report; one result for each limit, candidate and condition it was measured under.

    `references` are the recorded reports that limits are `against`, by the name the limits give them. With
    `here`, the machine the gate runs on, absolute times recorded on another machine are incomparable.
    Raises UsageError where a limit names a candidate that is not in the report.
    """
    candidates = report.candidates[1:]
    results: list[Result] = []
    for limit in limits:
        if limit.against and limit.against not in (references or {}):
            raise UsageError(
                f"the limit `{limit}` is against a report that was not given. Read it with gate.references."
            )
        chosen = [each for each in candidates if limit.candidate is None or called(each.subject, limit.candidate)]
        if limit.candidate is not None and not chosen:
            raise unknown("candidate", limit.candidate, {each.subject.name for each in candidates})
        for candidate in chosen:
            results += _check(limit, candidate, report, references or {}, here)
        if not chosen:
            results.append(_result(limit, "missing", "", "", reason="the report has no candidate"))
    return tuple(results)


def violations(results: Sequence[Result]) -> tuple[Result, ...]:
    """What breaks the gate: every result of level `error` that is neither a pass nor inconclusive."""
    return tuple(each for each in results if each.level == "error" and each.status not in ("passed", "inconclusive"))


def outcome(
    results: Sequence[Result], inconclusive: Literal["inconclusive", "fail", "warn"] = "inconclusive"
) -> Outcome:
    """The gate's verdict; `inconclusive` says what to make of results that do not decide."""
    undecided = any(each.level == "error" and each.status == "inconclusive" for each in results)
    if violations(results) or (undecided and inconclusive == "fail"):
        return "failed"
    return "inconclusive" if undecided and inconclusive == "inconclusive" else "passed"


EXIT_CODES: dict[Outcome, int] = {"passed": 0, "failed": CheckFailed.exit_code, "inconclusive": Inconclusive.exit_code}
"""What the command ends with for each outcome."""


def references(limits: Sequence[Limit], folder: Path) -> dict[str, Report]:
    """Read the reports that limits are against; their paths are relative to `folder`."""
    return {limit.against: reports.read(folder / limit.against) for limit in limits if limit.against}


def _check(
    limit: Limit, candidate: Candidate, report: Report, references: Mapping[str, Report], here: Environment | None
) -> list[Result]:
    name = candidate.subject.name
    interleaved = limit.metric == "latency" and limit.bound.name not in ("max", "min") and not limit.against
    samples = candidate.find("latency_ratio" if interleaved else limit.metric, runtime=limit.runtime, batch=limit.batch)
    if interleaved:
        samples = tuple(each for each in samples if each.measurement.conditions.get("baseline") == report.baseline)
    samples = tuple(each for each in samples if each.measurement.conditions.get("split", "test") == "test")
    if not samples:
        what = (
            "its latency was not measured in turn with the baseline's"
            if interleaved
            else f"its {limit.metric} was not measured"
        )
        where = ", ".join(filter(None, (limit.runtime, f"batch {limit.batch}" if limit.batch else None)))
        return [_result(limit, "missing", name, where, reason=f"{what}{f' ({where})' if where else ''}")]
    return [_judged(limit, candidate, sample, interleaved, report, references, here) for sample in samples]


def _judged(
    limit: Limit,
    candidate: Candidate,
    sample: Sample,
    interleaved: bool,
    report: Report,
    references: Mapping[str, Report],
    here: Environment | None,
) -> Result:
    name, where = candidate.subject.name, under(sample.measurement.conditions)
    bound, unit = limit.bound, METRICS[limit.metric].unit
    if interleaved:
        return _judge(limit, name, where, _interleaved(sample.measurement, bound))
    if bound.name in ("max", "min"):
        if here and unit in TIMES:
            # how many threads a session was given is a condition of the measurement, not of this process
            differing = comparable(sample.environment, dataclasses.replace(here, threads=sample.environment.threads))
            if differing:
                return _result(limit, "incomparable", name, where, reason=_elsewhere(differing, "this one"))
        return _judge(limit, name, where, _own(sample.measurement, limit.percentile))
    other = references[limit.against] if limit.against else report
    same = [each for each in other.candidates if each.subject.name == name] if limit.against else [other.candidates[0]]
    reference = same[0].counterpart(sample) if same else None
    if reference is None:
        of = f"{name} in {limit.against}" if limit.against else "the baseline"
        return _result(limit, "missing", name, where, reason=f"the {limit.metric} of {of} was not measured like this")
    if bound.unit == "x" and not (reference.measurement.median and sample.measurement.median):
        return _result(limit, "missing", name, where, reason="one of the two is 0, and a ratio with it says nothing")
    if unit in TIMES and (differing := comparable(sample.environment, reference.environment)):
        of = f"that of {limit.against or 'the baseline'}"
        return _result(limit, "incomparable", name, where, reason=_elsewhere(differing, of))
    return _judge(limit, name, where, _relative(sample, reference, bound))


def _interleaved(ratios: Measurement, bound: Bound) -> _Figure:
    rounds = f"{len(ratios.values):,} rounds"
    value, interval = speedup(ratios.values)
    if bound.name == "min_speedup":
        return _Figure(value, interval.low, interval.high, rounds)
    return _Figure(1 / value, 1 / interval.high, 1 / interval.low if interval.low else math.inf, rounds)


def _own(measurement: Measurement, percentile: int = 50) -> _Figure:
    """A figure by itself: exact as it is, what fresh processes gave by its extremes, a time by a percentile's interval."""
    metric = METRICS[measurement.metric]
    if metric.exact:
        return _Figure(measurement.median, measurement.median, measurement.median)
    count = f"{len(measurement.values):,} sample{'s' if len(measurement.values) > 1 else ''}"
    if measurement.metric in FRESH:
        return _Figure(measurement.median, min(measurement.values), max(measurement.values), count)
    interval = figures.quantile_interval(measurement.values, percentile / 100)
    return _Figure(measurement.percentile(percentile), interval.low, interval.high, count)


def _relative(sample: Sample, reference: Sample, bound: Bound) -> _Figure:
    """A figure beside the reference's: points of accuracy lost, or a ratio with the widest interval the two allow."""
    new, old = _own(sample.measurement), _own(reference.measurement)
    if bound.name == "max_drop":
        lost = round(old.value - new.value, 9)  # so that a drop of exactly the limit is within it
        test = pair(sample, reference)
        shown = f"{'' if test.shown else 'no '}difference shown, p = {test.p:.2g}" if test else "not tested"
        return _Figure(lost, lost, lost, shown)
    return _quotient(old, new) if bound.name == "min_speedup" else _quotient(new, old)


def _quotient(one: _Figure, other: _Figure) -> _Figure:
    low = max(one.low, 0.0) / other.high
    high = one.high / other.low if other.low > 0 else math.inf
    return _Figure(one.value / other.value, low, high, one.remark)


def _judge(limit: Limit, candidate: str, where: str, figure: _Figure) -> Result:
    bound = limit.bound
    ends = (bound.keeps(figure.low), bound.keeps(figure.high))
    status: Status = "passed" if all(ends) else "inconclusive" if any(ends) else "failed"
    reason = figure.remark
    if status == "inconclusive":
        few = math.isinf(figure.low) or math.isinf(figure.high)
        reason += ", too few to decide" if few else ", the interval holds the limit"
    margin = bound.value - figure.value if bound.upper else figure.value - bound.value
    return _result(limit, status, candidate, where, figure, margin, reason)


def _result(
    limit: Limit,
    status: Status,
    candidate: str,
    where: str,
    figure: _Figure | None = None,
    margin: float | None = None,
    reason: str = "",
) -> Result:
    low, high = (figure.low, figure.high) if figure else (math.nan, math.nan)
    return Result(
        status, limit.level, candidate, str(limit), where, limit.bound.unit, limit.bound.value,
        figure.value if figure else None, low if math.isfinite(low) else None, high if math.isfinite(high) else None, margin, reason,
    )  # fmt: skip


def _elsewhere(differing: Sequence[str], place: str) -> str:
    return f"recorded on another machine than {place}: different {', '.join(differing)}"
