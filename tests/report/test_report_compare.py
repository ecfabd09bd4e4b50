import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import recorded
from rich.console import Console

from compress.measurement import Entry, Measurement
from compress.report import compare
from compress.report import report as reports
from compress.report.compare import Change, Comparison


def made(folder: Path, *entries: Entry) -> reports.Report:
    return reports.from_recordings([recorded.write(folder / "measurements.json", *entries)], title=folder.name)


def compared(folder: Path, before: tuple[Entry, ...], after: tuple[Entry, ...]) -> Comparison:
    return compare.compare(made(folder / "before", *before), made(folder / "after", *after))


def of(comparison: Comparison, metric: str, subject: str = "resnet20-int8", where: str = "") -> Change:
    [found] = [
        each
        for each in comparison.changes
        if (each.metric, each.subject) == (metric, subject) and where in each.conditions
    ]
    return found


def test_a_report_beside_itself_shows_no_difference(tmp_path: Path) -> None:
    every = (recorded.entry(), recorded.int8(), recorded.pruned())
    found = compared(tmp_path, every, every)
    assert {each.finding for each in found.changes} == {"same", "not shown"}
    assert all(each.before == each.after for each in found.changes)


@pytest.mark.parametrize(
    ("before", "metric", "where", "finding"),
    [
        ({"size": 290_000}, "size", "", "worse"),
        ({"size": 303_001}, "size", "", "better"),
        ({"integer": 99.0}, "integer macs", "", "better"),
        ({"accuracy": 90.0}, "top1", "", "better"),
        ({"accuracy": 91.77, "flips": 0.006}, "top1", "", "not shown"),
        ({"speedup": 2.6}, "speed-up", "batch 64", "worse"),
        ({"speedup": 2.6}, "latency", "batch 64", "worse"),
        ({"speedup": 1.9}, "speed-up", "batch 64", "better"),
        ({"speedup": 1.9}, "latency", "batch 64", "better"),
        ({"speedup": 2.201}, "speed-up", "batch 64", "not shown"),
        ({"rounds": 5}, "speed-up", "batch 64", "not shown"),
    ],
)
def test_every_figure_is_called_better_or_worse_only_where_it_is_shown(
    tmp_path: Path, before: dict[str, float], metric: str, where: str, finding: str
) -> None:
    found = compared(tmp_path, (recorded.entry(), recorded.int8(**before)), (recorded.entry(), recorded.int8()))
    assert of(found, metric, where=where).finding == finding


def test_an_accuracy_without_answers_is_compared_as_it_stands(tmp_path: Path) -> None:
    before, after = (replace(recorded.int8(accuracy=accuracy), correct=None) for accuracy in (91.75, 91.74))
    found = of(compared(tmp_path, (recorded.entry(), before), (recorded.entry(), after)), "top1")
    assert (found.finding, found.reason) == ("worse", "")


def test_times_of_two_machines_are_not_compared(tmp_path: Path) -> None:
    elsewhere = [each(environment=recorded.OTHER_MACHINE) for each in (recorded.entry, recorded.int8)]
    found = compared(tmp_path, tuple(elsewhere), (recorded.entry(), recorded.int8()))
    for metric in ("latency", "speed-up"):
        change = of(found, metric, where="batch 64")
        assert (change.finding, change.reason) == ("incomparable", "different cpu, cores")
    assert of(found, "size").finding == "same"


def test_what_only_one_report_has_is_said(tmp_path: Path) -> None:
    found = compared(tmp_path, (recorded.entry(), recorded.int8()), (recorded.entry(), recorded.pruned()))
    assert {each.finding for each in found.changes if each.subject == "resnet20-int8"} == {"gone"}
    assert {each.finding for each in found.changes if each.subject == "resnet20-half-int8"} == {"new"}
    timed = Measurement("load_time", (0.1, 0.1), {"runtime": "onnxruntime"})
    more = replace(recorded.int8(), measurements=(*recorded.int8().measurements, timed))
    again = compared(tmp_path, (recorded.entry(), recorded.int8()), (recorded.entry(), more))
    assert of(again, "load time").finding == "new"


def test_files_of_one_name_go_together_by_their_digest(tmp_path: Path) -> None:
    twins = [
        replace(recorded.int8(size=size), subject=replace(recorded.int8().subject, digest=recorded.digest(str(size))))
        for size in (1000, 2000)
    ]
    found = compared(tmp_path, (recorded.entry(), *twins), (recorded.entry(), *reversed(twins)))
    sizes = [(each.before, each.after) for each in found.changes if each.metric == "size"]
    assert sizes == [(1_091_000, 1_091_000), (2000, 2000), (1000, 1000)]


def test_the_comparison_is_a_document_a_table_and_markdown(tmp_path: Path) -> None:
    found = compared(tmp_path, (recorded.entry(), recorded.int8(size=290_000)), (recorded.entry(), recorded.int8()))
    content = json.loads(compare.dumps(found))
    assert (content["kind"], content["titles"]) == ("compress comparison", ["before", "after"])
    assert "| resnet20-int8 | size | 290 KB | 303 KB | +4.5 % | worse |" in compare.markdown(found)
    assert compare.sentence(found).startswith("before against after: ")
    assert "2 worse" in compare.sentence(found)  # the size, and the memory that goes with it
    console = Console(file=io.StringIO(), width=80)
    console.print(compare.terminal(found))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "worse" in text
