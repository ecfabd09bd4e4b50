"""Why a candidate is not as many times faster as it has fewer multiply-accumulates, from what a report holds.

Findings overlap and need not add up; a cause that the recordings hold no evidence of is not found.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.quantity import show
from compress.report import table as tables
from compress.report.causes import CAUSES, Case, Finding
from compress.report.comparison import Row, Speed, headline, rows, under
from compress.report.report import Report

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class Explanation:
    """One candidate under one set of conditions: times faster by its MACs, as measured with interval, and the findings."""

    subject: str
    conditions: str
    expected: float | None
    measured: float | None
    interval: tuple[float, float] | None
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """What the measured ratio is beside that of the MACs, in a sentence."""
        if self.expected is None:
            return "nothing to compare: the MACs of both sides were not recorded"
        if self.measured is None or self.interval is None:
            return "nothing to compare: it was not timed against the baseline in one run"
        low, high = self.interval
        said = f"{show(self.expected, 'x')} by MACs, {show(self.measured, 'x')} measured ({show(low, 'x')} to {show(high, 'x')})"
        if low <= self.expected <= high or show(self.expected, "x") == show(self.measured, "x"):
            return f"{said}: as its MACs say"
        return f"{said}: {'less' if high < self.expected else 'more'}"


def explain(report: Report) -> tuple[Explanation, ...]:
    """Every candidate of a report under the conditions that most were timed under, with the largest batch."""
    compared = rows(report)
    at = headline(compared)
    return tuple(_explanation(row, compared, row.speed(at)) for row in compared[1:])


def _explanation(row: Row, every: Sequence[Row], speed: Speed | None) -> Explanation:
    before, after = every[0].median("macs"), row.median("macs")
    expected = before / after if before and after else None
    if speed is None or speed.speedup is None:
        return Explanation(row.name, under(speed.conditions) if speed else "", expected, None, None, ())
    measured, interval = speed.speedup
    case = Case(row, every[0], every, speed)
    findings = tuple(finding for find in CAUSES for finding in find(case))
    return Explanation(row.name, under(speed.conditions), expected, measured, (interval.low, interval.high), findings)


def plain(found: Sequence[Explanation]) -> dict[str, Any]:
    """The explanations as a JSON document's content."""
    return {"explanations": [{"verdict": each.verdict, **dataclasses.asdict(each)} for each in found]}


def terminal(found: Sequence[Explanation]) -> "Group":
    """The explanations for a terminal, to be printed by a rich console."""
    from rich.console import Group

    return Group(*(tables.terminal(_table(each)) for each in found))


def _table(each: Explanation) -> tables.Table:
    lines = [[finding.cause, finding.evidence, finding.remedy] for finding in each.findings] or [["none found", "", ""]]
    where = f" ({each.conditions})" if each.conditions else ""
    return tables.table(f"{each.subject}{where}: {each.verdict}", ["Cause|", "What shows it|", "What to do|"], lines)
