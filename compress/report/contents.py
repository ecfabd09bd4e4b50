"""The tables of a report, in the order of the page; every rendering shows the same ones."""

from collections.abc import Iterable, Sequence

from compress.measurement import METRICS, Environment, Hop, Node, by_operator
from compress.quantity import show
from compress.report import figures
from compress.report.candidate import Candidate, Sample, unique
from compress.report.comparison import Accuracy, Row, Speed, headline, under
from compress.report.report import Report
from compress.report.table import Cell, Table, Tone, printable, table
from compress.sensitivity import Sensitivity

HOP_TONES: dict[str, Tone] = {"passed": "good", "failed": "bad", "void": "bad", "skipped": "unsure"}
METRIC_TITLES = {
    "size": "Size",
    "parameters": "Parameters",
    "macs": "MACs",
    "integer_macs": "Integer MACs",
    "peak_memory": "Peak memory",
}


def label(row: Row) -> str:
    """A subject as it is called all over the report: its number and its name."""
    return f"{row.number} {row.name}"


def summary(compared: Sequence[Row]) -> tuple[Table, ...]:
    """The tables that every rendering shows first; those with nothing in them are left out."""
    tables = (comparison(compared), speed(compared), repeats(compared), parity(compared))
    return tuple(each for each in tables if each and each.rows)


def comparison(compared: Sequence[Row]) -> Table:
    """The baseline against its candidates: one row each."""
    at = headline(compared)
    baseline = compared[0].candidate
    columns = [
        "Subject|",
        "Top-1",
        "Change",
        f"Latency, {under(at.conditions, ('batch',))}" if at else "Latency",
        *METRIC_TITLES.values(),
    ]
    return table("Baseline and candidates", columns, (_compared(row, baseline, at) for row in compared))


def _compared(row: Row, baseline: Candidate, at: Speed | None) -> list[Cell]:
    subject, accuracy, speed = row.candidate.subject, row.accuracy, row.speed(at)
    role = "baseline, " if row.number == 0 else ""
    interval = accuracy.interval if accuracy else None
    return [
        Cell(label(row), f"{role}{subject.network}, {subject.format}, {subject.precision}"),
        Cell(
            show(accuracy.value, "%") if accuracy else "",
            f"{interval.low:.2f} to {interval.high:.2f}" if interval else "",
        ),
        Cell(show(accuracy.change, "pp"), accuracy.finding) if accuracy and accuracy.change is not None else Cell(""),
        Cell(show(speed.sample.measurement.median, "s"), speed.finding) if speed else Cell(""),
        *(_against(row.candidate, baseline, metric, at) for metric in METRIC_TITLES),
    ]


def _against(candidate: Candidate, baseline: Candidate, metric: str, at: Speed | None) -> Cell:
    """A figure and how many times more or less than the baseline's it is."""
    found = (at and candidate.find(metric, batch=at.batch)) or candidate.find(metric)
    if not found:
        return Cell("")
    value = found[0].measurement.median
    text = show(value, METRICS[metric].unit)
    reference = baseline.counterpart(found[0]) if candidate is not baseline else None
    before = reference.measurement.median if reference else 0.0
    if METRICS[metric].unit == "%" or not before or not value:
        return Cell(text)
    times = show(max(value / before, before / value), "x")
    return Cell(text, "the same" if times == "1.00x" else f"{times} {'less' if value < before else 'more'}")


def speed(compared: Sequence[Row]) -> Table:
    """Latency and throughput under every condition they were measured."""
    lines: list[list[Cell | str]] = [
        [
            Cell(label(row), under(each.conditions)),
            *_percentiles(each.sample),
            show(each.images_per_second, "1"),
            _speedup(each),
        ]
        for row in compared
        for each in row.speeds
    ]
    return table("Latency and throughput", ["Subject|", "p50", "p90", "p99", "Images/s", "Speed-up"], lines)


def _percentiles(sample: Sample) -> list[Cell]:
    count = f"of {len(sample.measurement.values):,}"
    values = [show(sample.measurement.percentile(share), "s") for share in (50, 90, 99)]
    return [Cell(values[0], count), Cell(values[1]), Cell(values[2])]


def _speedup(each: Speed) -> Cell:
    if not each.speedup or not each.ratio:
        return Cell("")
    value, interval = each.speedup
    rounds = len(each.ratio.values)
    if not interval.bounded:
        return Cell(show(value, "x"), f"{rounds} rounds are too few for an interval")
    span = f"{show(interval.low, 'x')} to {show(interval.high, 'x')}, {rounds:,} rounds"
    return Cell(show(value, "x"), span + (", no difference shown" if interval.holds(1) else ""))


def repeats(compared: Sequence[Row]) -> Table | None:
    """Mean and spread of subjects of one name, such as one recipe with several seeds; None where there are none."""
    named: dict[tuple[str, ...], dict[str, Accuracy]] = {}
    for row in compared:
        subject = row.candidate.subject
        if row.accuracy:
            alike = (subject.name, subject.network, subject.format, subject.precision)
            named.setdefault(alike, {})[subject.digest] = row.accuracy
    lines = []
    for (name, *_), found in named.items():
        values = [accuracy.value for accuracy in found.values()]
        changes = [accuracy.change for accuracy in found.values() if accuracy.change is not None]
        if len(values) > 1:
            mean, deviation = figures.spread(values)
            change = show(figures.spread(changes)[0], "pp") if len(changes) == len(values) else ""
            extent = f"{show(min(values), '%')} to {show(max(values), '%')}"
            lines.append([name, str(len(values)), show(mean, "%"), change, f"{deviation:.2f} points", extent])
    columns = ["Subject|", "Runs", "Mean top-1", "Mean change", "Standard deviation", "Range"]
    return table("Several of one name", columns, lines) if lines else None


def parity(compared: Sequence[Row]) -> Table | None:
    """Every hop compared with the one before; a skipped one is no pass."""
    lines: list[list[Cell | str]] = [
        [label(row), hop.name, Cell(hop.verdict, tone=HOP_TONES[hop.verdict]), _hop(hop), hop.reason]
        for row in compared
        for hop in row.candidate.parity
    ]
    return (
        table("Parity, each hop with the one before", ["Subject|", "Hop|", "Verdict|", "Figures|", "Why|"], lines)
        if lines
        else None
    )


def _hop(hop: Hop) -> Cell:
    """What the hop was judged by, and what else was measured of it."""
    said = {name: f"{name.replace('_', ' ')} {value:.4g}" for name, value in hop.figures.items()}
    judged = [f"{words} (limit {hop.tolerance[name]:.4g})" for name, words in said.items() if name in hop.tolerance]
    return Cell("; ".join(judged), "; ".join(words for name, words in said.items() if name not in hop.tolerance))


def layers(row: Row, baseline: Row) -> Table | None:
    """The layers of one subject; channels beside those the baseline's layer of that name has.

    The shares of time are of all that the runtime did; the last line has what belongs to no layer.
    """
    candidate = row.candidate
    if not candidate.layers:
        return None
    before = {layer.name: layer for layer in baseline.candidate.layers}
    macs = sum(layer.macs for layer in candidate.layers)
    profile, sensitivity = candidate.profile, candidate.sensitivity
    seconds = profile.seconds if profile else 0.0
    lines: list[list[Cell | str]] = []
    for layer in candidate.layers:
        old = before.get(layer.name, layer)
        changed = (old.inputs, old.outputs) != (layer.inputs, layer.outputs)
        lines.append([
            Cell(layer.name, layer.kind),
            Cell(f"{layer.inputs} to {layer.outputs}", f"was {old.inputs} to {old.outputs}" if changed else ""),
            show(100 * layer.zeros, "%"),
            layer.precision,
            show(layer.macs, "1"),
            show(100 * layer.macs / macs, "%") if macs else "",
            show(100 * layer.seconds / seconds, "%") if layer.seconds is not None and seconds else "",
            _harm(layer.sensitivity, sensitivity),
            layer.note,
        ])  # fmt: skip
    if profile and seconds:
        names = {layer.name for layer in candidate.layers}
        rest = [node for node in profile.nodes if node.layer not in names]
        share = show(100 * sum(node.seconds for node in rest) / seconds, "%")
        lines.append([Cell("between layers", _operators(rest, seconds)), "", "", "", "", "", share, "", ""])
    columns = [
        "Layer|",
        "Channels",
        "Zeros",
        "Precision|",
        "MACs",
        "Share of MACs",
        "Share of time",
        f"Without {sensitivity.middle:.0%} of its {sensitivity.structure}" if sensitivity else "Sensitivity",
        "Note|",
    ]
    times = f"times: {under(profile.conditions)}" if profile else "where the time goes was not told"
    return table(f"Layers of {label(row)}; {times}", columns, lines)


def _harm(value: float | None, sensitivity: Sensitivity | None) -> str:
    """What a layer's share costs: points of accuracy lost, or how far the logits move, of their own length."""
    if value is None:
        return ""
    return show(-value, "pp") if sensitivity and sensitivity.measure == "top1" else f"moves {100 * value:.1f} %"


def _operators(nodes: Iterable[Node], seconds: float) -> str:
    """The operators that take the most time, with their share of all."""
    most = list(by_operator(nodes).items())[:4]
    return ", ".join(f"{operator} {100 * each / seconds:.1f} %" for operator, each in most)


def notes(compared: Iterable[Row]) -> tuple[tuple[str, str], ...]:
    """What there is to say about the subjects, each note once with the numbers of those it is about."""
    found: dict[str, list[str]] = {}
    for row in compared:
        for note in row.candidate.notes:
            found.setdefault(printable(note), []).append(str(row.number))
    return tuple((note, ", ".join(numbers)) for note, numbers in found.items())


def refusals(compared: Iterable[Row]) -> Table | None:
    """The layers that were left alone, each reason once with the subjects it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in compared:
        for layer in row.candidate.layers:
            if layer.note:
                found.setdefault((layer.name, layer.note), []).append(str(row.number))
    lines = [(layer, why, ", ".join(numbers)) for (layer, why), numbers in found.items()]
    return table("Layers left alone", ["Layer|", "Reason|", "Subjects|"], lines) if lines else None


def environments(report: Report) -> tuple[Environment, ...]:
    """The machines of a report, each once, in the order met."""
    every = [environment for candidate in report.candidates for environment in candidate.environments]
    return unique(every)


def environment(report: Report) -> Table:
    """Machine and software, one column for each that was measured on."""
    machines = environments(report)
    names = ("cpu", "cores", "gpu", "driver", "threads", "system", "python", "date")
    versions = sorted({name for machine in machines for name in machine.versions})
    lines = [[name, *(str(getattr(machine, name) or "none") for machine in machines)] for name in names]
    lines += [[name, *(machine.versions.get(name, "none") for machine in machines)] for name in versions]
    return table("Machine and software", ["|", *(f"E{number}|" for number in range(1, len(machines) + 1))], lines)


def recordings(report: Report) -> Table:
    """What the report was made from."""
    lines = [[f"R{number} {source.name}", source.digest] for number, source in enumerate(report.sources, 1)]
    return table("Recordings", ["Recording|", "Digest|"], lines)


def subjects(compared: Iterable[Row]) -> Table:
    """The files that were measured."""
    lines = [[label(row), row.candidate.subject.digest, row.candidate.subject.fingerprint] for row in compared]
    return table("Files measured", ["Subject|", "Digest of the file|", "Fingerprint of its checkpoint|"], lines)


def numbers(report: Report, compared: Sequence[Row]) -> Table:
    """Every number recorded, with its samples, its machine and the recording it is from."""
    machines = environments(report)
    places = {source.digest: f"R{number}" for number, source in enumerate(report.sources, 1)}
    lines = []
    for row in compared:
        for sample in row.candidate.samples:
            measurement = sample.measurement
            unit = METRICS[measurement.metric].unit
            spread = (
                [show(measurement.percentile(share), unit) for share in (10, 90)] if len(measurement.values) > 1 else []
            )
            conditions = {name: value for name, value in measurement.conditions.items() if name != "baseline"}
            lines.append([
                label(row),
                measurement.metric.replace("_", " "),
                under(conditions, tuple(conditions)),
                f"{len(measurement.values):,}",
                show(measurement.median, unit),
                " to ".join(spread),
                f"E{machines.index(sample.environment) + 1}",
                " ".join(places[source] for source in sample.sources),
            ])  # fmt: skip
    columns = ["Subject|", "Metric|", "Measured with|", "Samples", "Median", "p10 to p90", "Environment|", "Recording|"]
    return table("Every number and where it is from", columns, lines)
