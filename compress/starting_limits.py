"""A limits file to start from: what a report shows, with a margin on each figure."""

import json
import math

from compress.measurement import METRICS
from compress.quantity import show
from compress.report.comparison import Row, rows
from compress.report.report import Report

POINTS, SLOWER, LARGER, MEMORY = 0.5, 0.9, 1.02, 1.25
"""Points of accuracy, share of the speed-up, share of size and counts, and of peak memory, that may still be lost."""
SPARSE = 10.0
"""Per cent of zero weights that are meant; fewer are what rounding to integers leaves."""


def starting_limits(report: Report) -> str:
    """The text of a limits file that this report passes; each figure it is drawn from is said beside it."""
    title = json.dumps(report.title, ensure_ascii=False)
    lines = [f"# Limits drawn from the report {title}, with a margin on each figure."]
    compared = rows(report)[1:]
    lines.append("limits:" if compared else "limits: []")
    names = [row.name for row in compared]
    for row in compared:
        name = row.name if names.count(row.name) == 1 else row.candidate.subject.digest
        named = json.dumps(name, ensure_ascii=False)
        lines += [f"  - {{candidate: {named}, {demand}}}  # recorded: {recorded}" for demand, recorded in _demands(row)]
    return "\n".join(lines) + "\n"


def _demands(row: Row) -> list[tuple[str, str]]:
    found = []
    if row.accuracy and row.accuracy.change is not None:
        drop = _up(max(0.0, -row.accuracy.change) + POINTS, 0.1)
        found.append((f"metric: top1, max_drop: {drop:g}pp", show(row.accuracy.change, "pp") + " beside the baseline"))
    elif row.accuracy:
        found.append(
            (
                f"metric: top1, min: {_down(max(0.0, row.accuracy.value - POINTS), 0.1):g}%",
                show(row.accuracy.value, "%"),
            )
        )
    factors = {"size": LARGER, "parameters": LARGER, "macs": LARGER, "peak_memory": MEMORY}
    for metric, factor in factors.items():
        values = [value for sample in row.candidate.find(metric) for value in sample.measurement.values]
        if values and max(values) > 0:
            unit = METRICS[metric].unit
            step = 10.0 ** (math.floor(math.log10(max(values) * factor)) - 2)
            highest = show(_up(max(values) * factor, step), unit).replace(" ", "")
            warn = ", level: warn" if metric == "peak_memory" else ""
            found.append((f"metric: {metric}, max: {highest}{warn}", show(max(values), unit)))
    for metric, least in (("integer_macs", 0.0), ("sparsity", SPARSE)):
        shares = [sample.measurement.median for sample in row.candidate.find(metric)]
        found += [
            (f"metric: {metric}, min: {_down(share, 0.1):g}%", show(share, "%")) for share in shares if share >= least
        ]
    hops = row.candidate.parity
    if hops and all(hop.verdict == "passed" for hop in hops):
        found.append(("metric: parity, min: 100%", f"{len(hops)} hops passed"))
    for speed in row.speeds:
        if speed.speedup and speed.speedup[1].bounded:
            where = ", ".join(
                f"{name}: {json.dumps(speed.conditions[name])}"
                for name in ("runtime", "batch")
                if name in speed.conditions
            )
            lowest = _down(SLOWER * speed.speedup[1].low, 0.01)
            found.append((f"metric: latency, {where}, min_speedup: {lowest:g}x", show(speed.speedup[0], "x")))
    return found


def _up(value: float, step: float) -> float:
    return math.ceil(round(value / step, 6)) * step


def _down(value: float, step: float) -> float:
    return math.floor(round(value / step, 6)) * step
