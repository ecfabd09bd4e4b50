"""The per-layer view: where the time goes and what each layer can give up, beside its MACs."""

from dataclasses import replace
from pathlib import Path

import pytest
import recorded

from compress.measurement import Entry, Node, Profile
from compress.report import contents, rendering
from compress.report import report as reports
from compress.report.comparison import rows
from compress.sensitivity import Sensitivity

CONDITIONS: dict[str, str | int] = {"runtime": "onnxruntime", "device": "cpu", "batch": 64, "threads": 1}
PROFILE = Profile(
    CONDITIONS,
    (
        Node("stem/Conv", "QLinearConv", "stem.conv", 0.0010),
        Node("stem/Conv_2", "QLinearConv", "stem.conv", 0.0005),
        Node("classifier/Gemm", "QGemm", "classifier", 0.0015),
        Node("Add", "Add", "", 0.0006),
        Node("ReorderInput", "ReorderInput", "", 0.0003),
        Node("Add_2", "Add", "", 0.0001),
    ),
)
SENSITIVITY = Sensitivity(
    "sha256:one", "sha256:data", "channels", "l2", (0.5,), 100, 0, "top1", 90.0, {"stem.conv": (86.5,)}, ()
)


def view(folder: Path, **changes: object) -> contents.Table:
    candidate: Entry = recorded.int8(**changes)
    compared = rows(reports.from_recordings([recorded.run(folder, recorded.entry(), candidate)]))
    found = contents.layers(compared[1], compared[0])
    assert found is not None
    return found


def column(table: contents.Table, start: str) -> dict[str, str]:
    place = next(number for number, each in enumerate(table.columns) if each.title.startswith(start))
    return {row[0].text: str(row[place]) for row in table.rows}


def test_shares_of_time_are_of_all_that_the_runtime_did(tmp_path: Path) -> None:
    table = view(tmp_path, profile=PROFILE)
    shares = column(table, "Share of time")
    assert (shares["stem.conv"], shares["classifier"], shares["between layers"]) == ("37.50 %", "37.50 %", "25.00 %")
    assert shares["stage1.0.conv1"] == ""  # no kernel of its own was seen
    assert table.rows[-1][0].note == "Add 17.5 %, ReorderInput 7.5 %"
    assert table.caption.endswith("times: onnxruntime, cpu, batch 64, 1 thread")


def test_where_no_runtime_told_its_times_the_view_says_so(tmp_path: Path) -> None:
    table = view(tmp_path)
    assert "where the time goes was not told" in table.caption
    assert not any(each.title == "Share of time" for each in table.columns)


@pytest.mark.parametrize(("measure", "shown"), [("top1", "-3.50 pp"), ("distance", "moves 8650.0 %")])
def test_what_half_of_a_layer_is_worth_stands_beside_it(tmp_path: Path, measure: str, shown: str) -> None:
    table = view(tmp_path, sensitivities=(replace(SENSITIVITY, measure=measure),))
    assert column(table, "Without 50% of its channels")["stem.conv"] == shown


@pytest.mark.parametrize("ending", [".html", ".md"])
def test_page_and_markdown_show_it(tmp_path: Path, ending: str) -> None:
    entries = recorded.entry(), recorded.int8(profile=PROFILE, sensitivities=(SENSITIVITY,))
    text = rendering.RENDERINGS[ending](reports.from_recordings([recorded.run(tmp_path, *entries)]))
    assert "between layers" in text and "37.50 %" in text and "3.50 pp" in text


def test_what_was_not_measured_leaves_no_trace_in_a_report_so_that_digests_stay(tmp_path: Path) -> None:
    text = reports.dumps(reports.from_recordings([recorded.run(tmp_path)]))
    assert '"profile"' not in text and '"sensitivities"' not in text
