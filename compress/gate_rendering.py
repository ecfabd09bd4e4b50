"""What a gate found: a table for a terminal, Markdown for a job summary, JUnit XML, and JSON."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pydantic.dataclasses

from compress import document
from compress.architecture import STRICT
from compress.gate import Outcome, Result, Status
from compress.quantity import show
from compress.report import junit as xml
from compress.report import table as tables
from compress.report.table import Cell, Table, Tone

if TYPE_CHECKING:
    from rich.console import Group

KIND, FORMAT = "compress gate", 1
TONES: dict[Status, Tone] = {
    "passed": "good", "inconclusive": "unsure", "failed": "bad", "missing": "bad", "incomparable": "bad",
}  # fmt: skip
HEADS: dict[Outcome, str] = {
    "passed": "The gate passed",
    "failed": "The gate FAILED",
    "inconclusive": "The gate is INCONCLUSIVE, which is no pass (measure more, on a quieter machine)",
}


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Verdict:
    """A gate's outcome and what it rests on, as it stands in JSON."""

    outcome: Outcome
    results: tuple[Result, ...]


def dumps(verdict: Verdict) -> str:
    """The JSON document of a verdict."""
    return document.dumps(KIND, FORMAT, verdict)


def sentence(verdict: Verdict) -> str:
    """The outcome in one sentence, with what was only warned of."""
    counts = Counter(
        f"{each.status}{' (warning)' if each.level == 'warn' and each.status != 'passed' else ''}"
        for each in verdict.results
    )
    found = ", ".join(f"{count} {status}" for status, count in counts.items())
    undecided = verdict.outcome == "passed" and any(_undecided(each) for each in verdict.results)
    head = "The gate let pass what is INCONCLUSIVE, as it was told to" if undecided else HEADS[verdict.outcome]
    return f"{head}: {found or 'there are no limits'}."


def _undecided(result: Result) -> bool:
    return result.level == "error" and result.status == "inconclusive"


def table(results: Sequence[Result]) -> Table:
    """Every limit, the value it was held against, and the room that is left."""
    lines: list[list[Cell | str]] = [
        [
            Cell(each.candidate, each.conditions),
            Cell(each.limit, each.reason),
            Cell(show(each.value, each.unit) if each.value is not None else "", _interval(each)),
            show(each.margin, "pp" if each.unit == "%" else each.unit) if each.margin is not None else "",
            Cell(
                each.status,
                "only a warning" if each.level == "warn" and each.status != "passed" else "",
                TONES[each.status],
            ),
        ]
        for each in results
    ]
    return tables.table("Limits", ["Candidate|", "Limit|", "Value", "Margin", "Result|"], lines)


def markdown(verdict: Verdict) -> str:
    """The gate for a job summary."""
    return f"### {tables.escape(sentence(verdict))}\n\n{tables.markdown(table(verdict.results)) if verdict.results else ''}"


def terminal(verdict: Verdict) -> "Group":
    """The gate for a terminal, to be printed by a rich console."""
    from rich.console import Group
    from rich.text import Text

    styles = {"passed": "bold green", "failed": "bold red", "inconclusive": "bold yellow"}
    shown = [tables.terminal(table(verdict.results))] if verdict.results else []
    return Group(*shown, Text(tables.printable(sentence(verdict)), styles[verdict.outcome]))


def junit(verdict: Verdict) -> str:
    """JUnit XML, one case a result: what does not pass is a failure, but for warnings, which are said in the case."""
    cases: list[tuple[str, xml.Outcome, str]] = []
    for each in verdict.results:
        passed = each.status == "passed" or each.level == "warn"
        passed = passed or (each.status == "inconclusive" and verdict.outcome == "passed")
        said = "" if each.status == "passed" else f"{each.status}: "
        title = ", ".join(filter(None, (each.candidate, each.limit, each.conditions)))
        cases.append((title, "passed" if passed else "failure", said + each.reason))
    return xml.testsuites("compress gate", [xml.suite("gate", cases)])


def _interval(result: Result) -> str:
    if result.low is None or result.high is None or result.low == result.high:
        return ""
    return f"{show(result.low, result.unit)} to {show(result.high, result.unit)}"
