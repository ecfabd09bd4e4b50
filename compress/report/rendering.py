"""A report as Markdown for a pull request, JUnit XML for a build server, and tables for a terminal; and all of them at once."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from compress import storage
from compress.measurement import METRICS
from compress.report import contents
from compress.report import table as tables
from compress.report.comparison import Row, rows, under
from compress.report.html import html
from compress.report.junit import Outcome, suite, testsuites
from compress.report.report import Report, digest, dumps
from compress.report.table import printable
from compress.report.verdict import verdict

if TYPE_CHECKING:
    from rich.console import Group


FEW = 8
"""Subjects whose layers Markdown lists; the page lists those of all."""
OUTCOMES: dict[str, Outcome] = {"passed": "passed", "failed": "failure", "void": "failure", "skipped": "skipped"}


def markdown(report: Report) -> str:
    """The report for a pull request: the verdict and the tables, what is long folded away."""
    compared = rows(report)
    layers = [table for row in compared[:FEW] if (table := contents.layers(row, compared[0]))]
    folded = [contents.refusals(compared), contents.environment(report), contents.recordings(report)]
    parts = [f"# {tables.escape(report.title)}\n", f"{tables.escape(verdict(compared))}\n"]
    parts += [tables.markdown(table) for table in contents.summary(compared)]
    parts.append("".join(f"- {tables.escape(note)} ({numbers})\n" for note, numbers in contents.notes(compared)))
    if layers:
        shown = "\n".join(tables.markdown(table) for table in layers)
        parts.append(f"<details><summary>Layers</summary>\n\n{shown}\n</details>\n")
    inside = "\n".join(tables.markdown(table) for table in folded if table)
    parts.append(f"<details><summary>Layers left alone, environment, recordings</summary>\n\n{inside}\n</details>\n")
    if report.recipe:
        parts.append("<details><summary>Recipe</summary>\n\n" + tables.fenced(report.recipe, "yaml") + "\n</details>\n")
    parts.append(f"Digest of this report's content: `{digest(report)}`\n")
    return "\n".join(parts)


def terminal(report: Report) -> "Group":
    """The report for a terminal, to be printed by a rich console."""
    from rich.console import Group
    from rich.text import Text

    compared = rows(report)
    return Group(
        Text(printable(verdict(compared)), style="bold"),
        "",
        *(tables.terminal(table) for table in contents.summary(compared)),
        *(Text(f"note ({numbers}): {note}") for note, numbers in contents.notes(compared)),
    )


def junit(report: Report) -> str:
    """JUnit XML: a suite for each subject, its figures as properties, each parity hop a case; a skipped hop is skipped."""
    return testsuites(report.title, (_suite(row) for row in rows(report)))


def _suite(row: Row) -> Element:
    cases = [(hop.name, OUTCOMES[hop.verdict], hop.reason) for hop in row.candidate.parity]
    properties = {}
    for sample in row.candidate.samples:
        measurement = sample.measurement
        where = under(measurement.conditions, tuple(measurement.conditions))
        name = f"{measurement.metric}{f' ({where})' if where else ''}, {METRICS[measurement.metric].unit}"
        properties[name] = repr(measurement.median)
    return suite(contents.label(row), cases, properties)


RENDERINGS: dict[str, Callable[[Report], str]] = {".json": dumps, ".md": markdown, ".html": html, ".xml": junit}
"""Every file a report is written as, by its ending; the JSON is the one to keep, the others are made from it."""


def write(report: Report, stem: Path) -> tuple[Path, ...]:
    """Write every rendering beside each other as STEM.json, STEM.md and so on; returns the files.

    One of these endings on `stem` itself is left out: report.html is meant as report.
    """
    storage.folder(stem.parent)
    name = stem.stem if stem.suffix in RENDERINGS else stem.name
    files = tuple(stem.with_name(name + ending) for ending in RENDERINGS)
    for path, render in zip(files, RENDERINGS.values(), strict=True):
        storage.write_text(path, render(report))
    return files
