"""The verdict of a report in one sentence: how much faster and smaller, for how much accuracy, and where."""

from collections.abc import Sequence

from compress.quantity import show
from compress.report.comparison import Accuracy, Row, headline, under

NEAR = 1.0
"""Of several candidates, the verdict is of the fastest that loses at most so many points of accuracy."""


def verdict(compared: Sequence[Row]) -> str:
    """The rows of a report, the baseline first, in one sentence that says which candidate it is about."""
    baseline, *candidates = compared
    if not candidates:
        return f"Only {baseline.name} was measured; there is no candidate to set against it."
    if len(candidates) == 1:
        return sentence(baseline, candidates[0])
    at = headline(compared)
    near = [
        row for row in candidates if row.accuracy and row.accuracy.change is not None and row.accuracy.change >= -NEAR
    ]
    timed = [(speed.sample.measurement.median, row) for row in near if (speed := row.speed(at))]
    if timed:
        fastest = min(timed, key=lambda each: each[0])[1]
        return (
            f"Fastest of {len(candidates)} candidates within {NEAR:g} point of accuracy: {sentence(baseline, fastest)}"
        )
    judged = [(row.accuracy.value, row) for row in candidates if row.accuracy]
    if judged:
        best = max(judged, key=lambda each: each[0])[1]
        return f"Most accurate of {len(candidates)} candidates: {sentence(baseline, best)}"
    return f"{len(candidates)} candidates are set against {baseline.name}; the accuracy of none was measured."


def sentence(baseline: Row, row: Row) -> str:
    """One candidate against the baseline."""
    timed = sorted((speed for speed in row.speeds if speed.speedup), key=lambda speed: speed.batch)
    shown = timed if len(timed) < 3 else [timed[0], timed[-1]]
    gains, remarks = [], []
    for finding in dict.fromkeys(speed.finding for speed in shown):
        batches = [str(speed.batch) for speed in shown if speed.finding == finding]
        where = f" at batch {_listed(batches)}" if len(shown) > 1 else ""
        if finding.endswith(("faster", "slower")):
            gains.append(finding + where)
        else:
            remarks.append(f"speed{where}: {finding}")
    size, before = row.median("size"), baseline.median("size")
    if size and before:
        times = max(size / before, before / size)
        if show(times, "x") == "1.00x":
            remarks.append("about as large")
        else:
            gains.append(f"{show(times, 'x')} {'smaller' if size < before else 'larger'}")
    said = f"{row.name} is {_listed(gains)} than {baseline.name}" if gains else f"{row.name} beside {baseline.name}"
    parts = [said, *remarks, _accuracy(row.accuracy)]
    if shown:
        last = shown[-1]
        machine = last.sample.environment
        on = machine.cpu if last.conditions.get("device", "cpu") == "cpu" else machine.gpu or machine.cpu
        names = ("runtime", "threads") if len(shown) > 1 else ("runtime", "batch", "threads")
        parts.append("on " + ", ".join(filter(None, (under(last.conditions, names), on))))
    return ", ".join(parts) + "."


def _accuracy(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return "accuracy not measured"
    if accuracy.change is None:
        return f"at {show(accuracy.value, '%')} accuracy, the baseline's not measured on the same images"
    if accuracy.paired and not accuracy.paired.shown:
        return (
            f"with no difference in accuracy shown ({show(accuracy.change, 'pp')} on {accuracy.paired.images:,} images)"
        )
    points = (
        f"for {-accuracy.change:.2f} points of" if accuracy.change <= 0 else f"with {accuracy.change:.2f} points more"
    )
    return f"{points} accuracy{'' if accuracy.paired else ' (not tested)'}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
