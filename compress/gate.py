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
from compress.measurement import METRICS, Environment, comparable
from compress.report import report as reports
from compress.report.candidate import Candidate, Sample, called
from compress.report.comparison import pair, under
from compress.report.estimate import TIMES, Estimate, estimate, exact, faster, quotient
from compress.report.report import Report

__all__ = ["EXIT_CODES", "Limit", "Outcome", "Result", "Status", "check", "outcome", "references", "violations"]

Status = Literal["passed", "failed", "inconclusive", "missing", "incomparable"]
Outcome = Literal["passed", "failed", "inconclusive"]


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
class _Held:
    """What limits are held against: the report, those recorded before, and the machine that times have to be from."""

    report: Report
    references: Mapping[str, Report]
    here: Environment | None
    any_machine: bool


def check(
    report: Report,
    limits: Sequence[Limit],
    references: Mapping[str, Report] | None = None,
    here: Environment | None = None,
    any_machine: bool = False,
) -> tuple[Result, ...]:
    """Hold limits against a report; one result for each limit, candidate and condition it was measured under.

    `references` are the recorded reports that limits are `against`, by the name the limits give them. With
    `here`, the machine the gate runs on, absolute times recorded on another machine are incomparable;
    `any_machine` says to judge them all the same, and times against a report from another machine too.
    Raises UsageError where a limit names a candidate that is not in the report.
    """
    held = _Held(report, references or {}, here, any_machine)
    candidates = report.candidates[1:]
    results: list[Result] = []
    for limit in limits:
        if limit.against and limit.against not in held.references:
            raise UsageError(
                f"the limit `{limit}` is against a report that was not given. Read it with gate.references."
            )
        chosen = [each for each in candidates if limit.candidate is None or called(each.subject, limit.candidate)]
        if limit.candidate is not None and not chosen:
            raise unknown("candidate", limit.candidate, {each.subject.name for each in candidates})
        for candidate in chosen:
            results += _check(limit, candidate, held)
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


def _check(limit: Limit, candidate: Candidate, held: _Held) -> list[Result]:
    name = candidate.subject.name
    if limit.metric == "parity":
        return [_ledger(limit, candidate)]
    interleaved = limit.metric == "latency" and limit.bound.name not in ("max", "min") and not limit.against
    samples = candidate.find("latency_ratio" if interleaved else limit.metric, runtime=limit.runtime, batch=limit.batch)
    if interleaved:
        samples = tuple(each for each in samples if each.measurement.conditions.get("baseline") == held.report.baseline)
    samples = tuple(each for each in samples if each.measurement.conditions.get("split", "test") == "test")
    if not samples:
        what = (
            "its latency was not measured in turn with the baseline's"
            if interleaved
            else f"its {limit.metric} was not measured"
        )
        where = ", ".join(filter(None, (limit.runtime, f"batch {limit.batch}" if limit.batch else None)))
        return [_result(limit, "missing", name, where, reason=f"{what}{f' ({where})' if where else ''}")]
    judge = _interleaved if interleaved else _absolute if limit.bound.name in ("max", "min") else _relative
    return [judge(limit, candidate, sample, held) for sample in samples]


def _ledger(limit: Limit, candidate: Candidate) -> Result:
    """The share of a candidate's hops that passed; one that failed, was void or was skipped did not."""
    name, hops = candidate.subject.name, candidate.parity
    if not hops:
        return _result(limit, "missing", name, "", reason="no hop of its parity ledger was recorded")
    others = [hop for hop in hops if hop.verdict != "passed"]
    said = "; ".join(f"{hop.name} {hop.verdict}{f', {hop.reason}' if hop.reason else ''}" for hop in others)
    share = 100 * (len(hops) - len(others)) / len(hops)
    return _judge(limit, name, "", exact(share, said or f"{len(hops)} hops"))


def _interleaved(limit: Limit, candidate: Candidate, sample: Sample, held: _Held) -> Result:
    """A latency beside the baseline's in the same interleaved run, whatever the machine."""
    found = faster(sample.measurement)
    if limit.bound.name != "min_speedup":
        found = quotient(exact(1, found.remark), found)
    return _judge(limit, candidate.subject.name, under(sample.measurement.conditions), found)


def _absolute(limit: Limit, candidate: Candidate, sample: Sample, held: _Held) -> Result:
    """A figure by itself; a time has to be from this machine."""
    # how many threads a session was given is a condition of the measurement, not of this process
    here = dataclasses.replace(held.here, threads=sample.environment.threads) if held.here else None
    return _at_home(limit, candidate, sample, estimate(sample.measurement, limit.percentile), here, "this one", held)


def _relative(limit: Limit, candidate: Candidate, sample: Sample, held: _Held) -> Result:
    """A figure beside the baseline's, or beside that of the same subject in a recorded report."""
    name, where = candidate.subject.name, under(sample.measurement.conditions)
    others = _others(limit, candidate, held)
    reference = others[0].counterpart(sample) if len(others) == 1 else None
    if reference is None:
        of = f"{name} in {limit.against}" if limit.against else "the baseline"
        what = f"the {limit.metric} of {of} was not measured like this"
        several = f"{len(others)} subjects are called {of}, and none of them is this file"
        return _result(limit, "missing", name, where, reason=several if len(others) > 1 else what)
    if limit.bound.unit == "x" and not (reference.measurement.median and sample.measurement.median):
        return _result(limit, "missing", name, where, reason="one of the two is 0, and a ratio with it says nothing")
    found, place = _beside(sample, reference, limit.bound), f"that of {limit.against or 'the baseline'}"
    return _at_home(limit, candidate, sample, found, reference.environment, place, held)


def _others(limit: Limit, candidate: Candidate, held: _Held) -> list[Candidate]:
    """What a candidate is set beside: the baseline, or the same file, else the one of the same name, in a recorded report."""
    if not limit.against:
        return [held.report.candidates[0]]
    named = [each for each in held.references[limit.against].candidates if each.subject.name == candidate.subject.name]
    return [each for each in named if each.subject.digest == candidate.subject.digest][:1] or named


def _at_home(
    limit: Limit,
    candidate: Candidate,
    sample: Sample,
    found: Estimate,
    home: Environment | None,
    place: str,
    held: _Held,
) -> Result:
    """The verdict on a figure; a time from another machine than `home` has none, unless it was told not to matter."""
    name, where = candidate.subject.name, under(sample.measurement.conditions)
    timed = METRICS[limit.metric].unit in TIMES
    differing = comparable(sample.environment, home) if home and timed else ()
    said = f"recorded on another machine than {place}: different {', '.join(differing)}" if differing else ""
    if said and not held.any_machine:
        return _result(limit, "incomparable", name, where, reason=said)
    return _judge(limit, name, where, dataclasses.replace(found, remark=", ".join(filter(None, (found.remark, said)))))


def _beside(sample: Sample, reference: Sample, bound: Bound) -> Estimate:
    """A figure beside the reference's: points of accuracy lost, or a ratio with the widest interval the two allow."""
    new, old = estimate(sample.measurement), estimate(reference.measurement)
    if bound.name == "max_drop":
        test = pair(sample, reference)
        shown = f"{'' if test.shown else 'no '}difference shown, p = {test.p:.2g}" if test else "not tested"
        # rounded, so that a drop of exactly the limit is within it
        return exact(round(old.value - new.value, 9), shown)
    return quotient(old, new) if bound.name == "min_speedup" else quotient(new, old)


def _judge(limit: Limit, candidate: str, where: str, figure: Estimate) -> Result:
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
    figure: Estimate | None = None,
    margin: float | None = None,
    reason: str = "",
) -> Result:
    low, high = (figure.low, figure.high) if figure else (math.nan, math.nan)
    return Result(
        status, limit.level, candidate, str(limit), where, limit.bound.unit, limit.bound.value,
        figure.value if figure else None, low if math.isfinite(low) else None, high if math.isfinite(high) else None, margin, reason,
    )  # fmt: skip
