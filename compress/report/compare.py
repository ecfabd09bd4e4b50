"""Two reports side by side: what was measured in both, and what of it changed."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pydantic.dataclasses

from compress import document
from compress.architecture import STRICT
from compress.measurement import METRICS, comparable
from compress.quantity import show
from compress.report import table as tables
from compress.report.candidate import Candidate, Sample
from compress.report.comparison import pair, under
from compress.report.estimate import TIMES, Estimate, estimate, faster
from compress.report.report import Report, digest
from compress.report.table import Cell, Table, Tone

if TYPE_CHECKING:
    from rich.console import Group

KIND, FORMAT = "compress comparison", 1
Finding = Literal["same", "better", "worse", "not shown", "incomparable", "gone", "new"]
WORDS: dict[Finding, str] = {
    "same": "the same", "better": "better", "worse": "worse", "not shown": "no difference shown",
    "incomparable": "not comparable", "gone": "only in the first", "new": "only in the second",
}  # fmt: skip
TONES: dict[Finding, Tone] = {"better": "good", "worse": "bad", "incomparable": "unsure", "gone": "unsure"}
TITLES = {"latency_ratio": "speed-up"}


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Change:
    """One figure in both reports, in `unit`; None where a report does not have it."""

    subject: str
    metric: str
    conditions: str
    unit: str
    before: float | None
    after: float | None
    finding: Finding
    reason: str = ""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Comparison:
    """Two reports, by title and by the digest of their content, and every figure of either."""

    titles: tuple[str, str]
    digests: tuple[str, str]
    changes: tuple[Change, ...]


def compare(before: Report, after: Report) -> Comparison:
    """Set two reports side by side; subjects go together by name, or by their file where a name is not enough.

    Exact figures changed or did not; an accuracy is tested image by image where both reports have the answers;
    what was measured is better or worse where the two 95 % intervals lie apart, and times of two machines are
    not comparable.
    """
    changes: list[Change] = []
    rest = list(before.candidates)
    kept = {candidate.subject.digest for candidate in after.candidates}
    for candidate in after.candidates:
        old = _same(candidate, rest, kept)
        if old:
            rest.remove(old)
        changes += _changes(old or Candidate(candidate.subject), candidate)
    for old in rest:
        changes += _changes(old, Candidate(old.subject))
    return Comparison((before.title, after.title), (digest(before), digest(after)), tuple(changes))


def _same(candidate: Candidate, others: Sequence[Candidate], kept: set[str]) -> Candidate | None:
    """The same file, else the only one of that name that is in the first report alone."""
    subject = candidate.subject
    same = [each for each in others if each.subject.digest == subject.digest]
    named = [each for each in others if each.subject.name == subject.name and each.subject.digest not in kept]
    return same[0] if same else named[0] if len(named) == 1 else None


def _changes(before: Candidate, after: Candidate) -> list[Change]:
    found = {_key(sample): [sample, None] for sample in before.samples}
    for sample in after.samples:
        found.setdefault(_key(sample), [None, None])[1] = sample
    return [_change(after.subject.name, *pair) for pair in found.values()]


def _key(sample: Sample) -> tuple[object, ...]:
    """What two samples have in common that go together; which file a ratio was taken against may change."""
    measurement = sample.measurement
    return (measurement.metric, *sorted(each for each in measurement.conditions.items() if each[0] != "baseline"))


def _change(subject: str, before: Sample | None, after: Sample | None) -> Change:
    measurement = (after or before).measurement  # type: ignore[union-attr]  # one of the two is there
    metric = measurement.metric
    old, new = (_estimate(sample) if sample else None for sample in (before, after))
    named = {name: value for name, value in measurement.conditions.items() if name != "baseline"}
    finding, reason = _finding(before, after)
    return Change(
        subject, TITLES.get(metric, metric.replace("_", " ")), under(named, tuple(named)), METRICS[metric].unit,
        old.value if old else None, new.value if new else None, finding, reason,
    )  # fmt: skip


def _estimate(sample: Sample) -> Estimate:
    measurement = sample.measurement
    return faster(measurement) if measurement.metric == "latency_ratio" else estimate(measurement)


def _finding(before: Sample | None, after: Sample | None) -> tuple[Finding, str]:
    if before is None or after is None:
        return ("new", "") if before is None else ("gone", "")
    metric = METRICS[after.measurement.metric]
    ratio = after.measurement.metric == "latency_ratio"
    differing = comparable(before.environment, after.environment) if ratio or metric.unit in TIMES else ()
    if differing:
        return "incomparable", f"different {', '.join(differing)}"
    old, new = _estimate(before), _estimate(after)
    higher = metric.better == "higher" or ratio
    better: Finding = "better" if (new.value > old.value) == higher else "worse"
    test = pair(after, before) if after.measurement.metric == "top1" else None
    if test and old.value != new.value:
        return (better if test.shown else "not shown"), f"p = {test.p:.2g}"
    if metric.exact:
        return ("same", "") if old.value == new.value else (better, "")
    apart = new.low > old.high or new.high < old.low
    return (better if apart else "not shown"), new.remark


def dumps(comparison: Comparison) -> str:
    """The JSON document of a comparison."""
    return document.dumps(KIND, FORMAT, comparison)


def sentence(comparison: Comparison) -> str:
    """How many figures changed, in one sentence."""
    counts = Counter(WORDS[change.finding] for change in comparison.changes)
    one, other = comparison.titles
    listed = ", ".join(f"{count} {words}" for words, count in counts.most_common())
    return f"{one} against {other}: {listed or 'nothing was measured'}."


def table(comparison: Comparison) -> Table:
    """Every figure of both reports."""
    lines: list[list[Cell | str]] = [
        [
            Cell(change.subject, change.conditions),
            change.metric,
            *(show(value, change.unit) if value is not None else "" for value in (change.before, change.after)),
            _difference(change),
            Cell(WORDS[change.finding], change.reason, TONES.get(change.finding, "")),
        ]
        for change in comparison.changes
    ]
    return tables.table(
        "Two reports side by side", ["Subject|", "Metric|", "First", "Second", "Change", "Finding|"], lines
    )


def markdown(comparison: Comparison) -> str:
    """The comparison for a pull request."""
    return f"# {tables.escape(sentence(comparison))}\n\n{tables.markdown(table(comparison))}"


def terminal(comparison: Comparison) -> "Group":
    """The comparison for a terminal, to be printed by a rich console."""
    from rich.console import Group
    from rich.text import Text

    return Group(Text(tables.printable(sentence(comparison)), style="bold"), "", tables.terminal(table(comparison)))


def _difference(change: Change) -> str:
    """How much more or less: in points for percentages, in per cent of the first for everything else."""
    if change.before is None or change.after is None or change.finding == "incomparable":
        return ""
    if change.unit == "%":
        return show(change.after - change.before, "pp")
    return f"{100 * (change.after / change.before - 1) + 0.0:+.1f} %" if change.before else ""
