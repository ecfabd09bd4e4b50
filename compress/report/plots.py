"""The plots of a report as SVG that stands in an HTML page: its colours are the page's, its bytes always the same."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compress.quantity import show
from compress.report import figures
from compress.report.figures import Interval
from compress.report.table import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "#010203": "ink",
    "#040506": "quiet",
    "#070809": "line",
    "#0a0b0c": "accent",
    "#0d0e0f": "second",
    "#fcfdfe": "paper",
}
"""What matplotlib draws with, and the variable of the page's style sheet that takes its place."""
INK, QUIET, LINE, ACCENT, SECOND, PAPER = COLOURS
WIDE = 8.0
"""A cost axis that spans more than this factor is logarithmic."""


@dataclass(frozen=True)
class Point:
    """A subject on a plot: its number in the report's tables, what it costs, its accuracy in per cent."""

    number: int
    cost: float
    accuracy: float
    interval: Interval | None


def trade(name: str, points: Sequence[Point], cost: str, unit: str) -> str:
    """Accuracy over a cost, as SVG: points with their intervals, joined where no other point beats them in both.

    `name` sets this plot's identifiers apart from those of others in the same page.
    """
    figure, (axes,) = _figure(1, 5.0, 3.4)
    costs, accuracies = [point.cost for point in points], [point.accuracy for point in points]
    if min(costs) > 0 and max(costs) > WIDE * min(costs):
        axes.set_xscale("log")
    front = figures.front(list(zip(costs, accuracies, strict=True)))
    axes.plot(
        [costs[each] for each in front],
        [accuracies[each] for each in front],
        color=ACCENT,
        linewidth=1.5,
        alpha=0.6,
        zorder=1,
    )
    named = _apart(points)
    for place, point in enumerate(points):
        colour = ACCENT if place in front else QUIET
        if point.interval:
            axes.plot(
                [point.cost] * 2,
                [point.interval.low, point.interval.high],
                color=colour,
                linewidth=1,
                alpha=0.5,
                zorder=2,
            )
        axes.plot(
            point.cost,
            point.accuracy,
            "D" if point.number == 0 else "o",
            color=colour,
            markeredgecolor=PAPER,
            markersize=8,
            zorder=3,
        )
        if place in named:
            axes.annotate(
                str(point.number),
                (point.cost, point.accuracy),
                (6, 5),
                textcoords="offset points",
                color=INK,
                fontsize=11,
            )
    axes.margins(0.12)
    _ticks(axes, lambda value: re.sub(r"\.0*(?!\d)|(\.\d*?[1-9])0+(?!\d)", r"\1", show(value, unit)))
    axes.set_xlabel(cost)
    axes.set_ylabel("top-1, %")
    return _svg(figure, name)


def _apart(points: Sequence[Point]) -> list[int]:
    """The points whose numbers can be written without one lying on another; the first come first."""
    kept: list[int] = []
    place = np.array([(point.cost, point.accuracy) for point in points])
    place = (place - place.min(axis=0)) / np.maximum(np.ptp(place, axis=0), 1e-12)
    for each in range(len(points)):
        if all((abs(place[each] - place[other]) > (0.055, 0.06)).any() for other in kept):
            kept.append(each)
    return kept


def curves(name: str, series: Mapping[str, Sequence[float]]) -> str:
    """What was measured in each epoch, as SVG: `train_` and `validation_` figures of one quantity share a panel."""
    panels: dict[str, dict[str, Sequence[float]]] = {}
    for series_name, values in series.items():
        title = printable(series_name)
        split, _, quantity = title.partition("_")
        known = split in ("train", "validation")
        panels.setdefault(quantity if known else title, {})[split if known else ""] = values
    figure, every = _figure(len(panels), 5.0, 1.7 * len(panels) + 0.4)
    for axes, (quantity, lines) in zip(every, panels.items(), strict=True):
        for split, values in lines.items():
            epochs = range(1, len(values) + 1)
            axes.plot(
                epochs,
                values,
                color=SECOND if split == "train" else ACCENT,
                linestyle="--" if split == "train" else "-",
                marker=".",
                label=split,
            )
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=INK)
        axes.set_ylabel(quantity.replace("_", " "))
        axes.margins(x=0.02)
        _ticks(axes, lambda value: f"{value:g}", whole=True)
    every[-1].set_xlabel("epoch")
    return _svg(figure, name)


def _figure(panels: int, width: float, height: float) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    with _style("figure"):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_visible(False)
        every = [figure.add_subplot(panels, 1, place + 1) for place in range(panels)]
        for axes in every:
            axes.patch.set_visible(False)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(QUIET)
            axes.grid(color=LINE, linewidth=0.8)
            axes.set_axisbelow(True)
    return figure, every


def _style(name: str) -> AbstractContextManager[None]:
    """Matplotlib's own defaults, whatever the user's settings, with our colours; text is drawn as text, never as formulas."""
    from matplotlib import style

    own = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 11, "text.parse_math": False}
    return style.context(
        ["default", own | dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)]
    )


def _ticks(axes: "Axes", words: Callable[[float], str], whole: bool = False) -> None:
    """Few labels along the cost axis, in words of their own; only whole numbers where fractions mean nothing."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if axes.get_xscale() == "log":
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))


def _svg(figure: "Figure", name: str) -> str:
    """The drawing as an SVG element: text kept as text, identifiers of its own, colours as variables of the page."""
    drawn = io.StringIO()
    with _style(name):
        figure.savefig(
            drawn,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
            transparent=True,
        )
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font(-family)?: [^;\"]*'[^;\"]*;?", lambda found: _font(found[0]), svg)
    for colour, variable in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _font(style: str) -> str:
    size = re.search(r"[\d.]+px", style)
    return f"font-size: {size[0]};" if size else ""
