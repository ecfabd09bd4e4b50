"""The report as one HTML page that needs nothing but itself: tables, drawings, and the words between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from compress.quantity import show
from compress.report import contents, figures, plots
from compress.report.candidate import unique
from compress.report.comparison import Row, headline, rows, under
from compress.report.report import Report, digest
from compress.report.table import Table, printable
from compress.report.verdict import verdict
from compress.train.diagnosis import explained

if TYPE_CHECKING:
    from jinja2 import Template

FEW = 8
"""Up to so many subjects, a plot's caption names them; beyond, the table does."""


SEEN = "The weights had seen the validation images, so these curves cannot show over-fitting"


@dataclass(frozen=True)
class Plot:
    """A drawing, the line under it, and what it says to someone who cannot see it."""

    svg: str
    caption: str
    described: str


@dataclass(frozen=True)
class Page:
    """Everything on the page, in its order; what is empty or None is left out."""

    title: str
    verdict: str
    comparison: Table
    speed: Table
    repeats: Table | None
    plots: tuple[Plot, ...]
    parity: Table | None
    layers: tuple[Table, ...]
    curves: tuple[Plot, ...]
    notes: tuple[tuple[str, str], ...]
    refusals: Table | None
    recipe: str
    environment: Table
    recordings: Table
    subjects: Table
    numbers: Table
    digest: str

    @property
    def sections(self) -> list[tuple[str, str]]:
        """The headings of the page, for its list of contents."""
        headings = {
            "comparison": "Comparison", "plots": "What accuracy costs", "parity": "Parity", "layers": "Layers", "curves": "Training",
            "notes": "Notes and refusals", "recipe": "Recipe", "environment": "Environment",
        }  # fmt: skip
        return [
            (name, heading)
            for name, heading in headings.items()
            if getattr(self, name) or (name == "notes" and self.refusals)
        ] + [("sources", "Sources")]


def html(report: Report) -> str:
    """The page; the same bytes for the same report."""
    return _template().render(page=page(report))


def page(report: Report) -> Page:
    """What stands on the page."""
    compared = rows(report)
    return Page(
        printable(report.title),
        printable(verdict(compared)),
        contents.comparison(compared),
        contents.speed(compared),
        contents.repeats(compared),
        tuple(_trades(compared)),
        contents.parity(compared),
        tuple(table for row in compared if (table := contents.layers(row, compared[0]))),
        tuple(_curves(compared)),
        contents.notes(compared),
        contents.refusals(compared),
        printable(report.recipe or ""),
        contents.environment(report),
        contents.recordings(report),
        contents.subjects(compared),
        contents.numbers(report, compared),
        digest(report),
    )


def _trades(compared: Sequence[Row]) -> list[Plot]:
    at = headline(compared)
    timed = {row.number: speed.sample.measurement.median for row in compared if (speed := row.speed(at))}
    sized = {row.number: size for row in compared if (size := row.median("size"))}
    where = f"latency, {under(at.conditions)}" if at else ""
    return [*_trade("latency", compared, timed, where, "s"), *_trade("size", compared, sized, "size of the file", "B")]


def _trade(name: str, compared: Sequence[Row], costs: dict[int, float], title: str, unit: str) -> list[Plot]:
    """Accuracy over one cost, where at least two subjects have both."""
    points = [
        plots.Point(row.number, costs[row.number], row.accuracy.value, row.accuracy.interval)
        for row in compared
        if row.accuracy and row.number in costs
    ]
    if len(points) < 2:
        return []
    front = [points[place].number for place in figures.front([(point.cost, point.accuracy) for point in points])]
    key = (
        "; ".join(contents.label(compared[point.number]) for point in points)
        if len(points) <= FEW
        else "Numbers are those of the table; where points crowd, not every one has its own"
    )
    best = "On the line: those that no other beats in both accuracy and " + name
    caption = printable(f"Top-1 accuracy over {title}; up and to the left is better. {best}. {key}.")
    listed = ", ".join(
        f"{contents.label(compared[point.number])}: {point.accuracy:.2f} % at {show(point.cost, unit)}"
        for point in points[:40]
    )
    described = printable(f"Plot of top-1 accuracy over {title}. Undominated: {', '.join(map(str, front))}. {listed}.")
    return [Plot(plots.trade(name, points, title, unit), caption, described)]


def _curves(compared: Sequence[Row]) -> list[Plot]:
    """The curves of every training, each once with the subjects that have it in their history."""
    found = []
    for number, curve in enumerate(unique(curve for row in compared for curve in row.candidate.curves)):
        series = {name: values for name, values in curve.figures.items() if values}
        if not series:
            continue
        said = ""
        if curve.seen and "validation_top1" in series:
            said = f" {SEEN}."
        elif {"train_loss", "train_top1"} <= series.keys() and len({*map(len, series.values())}) == 1:
            told = explained(series)[-1]
            said = f" {told[0].upper()}{told[1:]}."
        names = "; ".join(contents.label(row) for row in compared if curve in row.candidate.curves)
        caption = printable(f"{curve.step}, {max(map(len, series.values()))} epochs: {names}.{said}")
        last = ", ".join(f"{name.replace('_', ' ')} {values[-1]:.4g}" for name, values in series.items())
        described = printable(f"Curves of {caption} In the last epoch: {last}.")
        found.append(Plot(plots.curves(f"curve-{number}", series), caption, described))
    return found


@cache
def _template() -> "Template":
    import jinja2

    loader = jinja2.PackageLoader("compress.report", "")
    settings = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return settings.get_template("page.html.j2")
