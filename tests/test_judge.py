"""A gate's verdict as a workflow sees it: its files, and where paths start from."""

import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
import recorded

from compress import judge as judging
from compress.errors import UsageError
from compress.judge import Asked, judge
from compress.measurement import Entry
from compress.report import report as reports


def write(path: Path, *entries: Entry) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    recording = recorded.write(path.with_suffix(".measurements"), *(entries or (recorded.entry(), recorded.int8())))
    path.write_text(reports.dumps(reports.from_recordings([recording])))
    return path


@pytest.fixture(autouse=True)
def _no_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(judging.SUMMARY, raising=False)


def test_the_verdict_is_added_to_the_summary_of_a_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv(judging.SUMMARY, str(summary))
    for demand in ("500KB", "1KB"):
        judge(write(tmp_path / "today.json"), Asked(options={"max_size": demand}))
    before, first, second = summary.read_text().split("### ")
    assert before == "before\n"
    assert first.startswith("The gate passed: 1 passed.")
    assert second.startswith("The gate FAILED: 1 failed.")
    assert "| resnet20-int8 | size: at most 1KB | 303 KB | -302 KB | failed |" in second


def test_without_a_workflow_nothing_but_what_was_asked_for_is_written(tmp_path: Path) -> None:
    report = write(tmp_path / "today.json")
    before = set(tmp_path.iterdir())
    judge(report, Asked(options={"max_size": "500KB"}), junit=tmp_path / "gate.xml")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "gate.xml"}
    assert xml.fromstring((tmp_path / "gate.xml").read_text()).get("tests") == "1"


def test_a_file_a_preset_and_options_hold_together(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("limits:\n  - {metric: parameters, max_ratio: 1x}\n")
    asked = Asked(tmp_path / "gate.yaml", "mlperf-tiny-ic", {"max_size": "500KB", "min_speedup": None})
    verdict = judge(write(tmp_path / "today.json"), asked)
    assert [each.limit.partition(":")[0] for each in verdict.results] == ["parameters", "top1", "size"]
    assert verdict.outcome == "passed"


def test_a_recorded_report_of_a_file_lies_beside_it_and_that_of_an_option_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "reports" / "main.json", recorded.entry(), recorded.int8(size=300_000))
    write(tmp_path / "other" / "main.json", recorded.entry(), recorded.int8(size=200_000))
    limits = tmp_path / "reports" / "gate.yaml"
    limits.write_text("limits:\n  - {metric: size, max_ratio: 1.02x, against: main.json}\n")
    today = write(tmp_path / "today.json")
    monkeypatch.chdir(tmp_path / "other")
    asked = Asked(limits, options={"max_size": "1.02x"}, scope={"against": "main.json"})
    verdict = judge(today, asked)
    assert [(each.status, round(each.value or 0, 3)) for each in verdict.results] == [
        ("passed", 1.01),
        ("failed", 1.515),
    ]
    assert verdict.results[1].limit.endswith("against ../other/main.json")


def test_a_gate_without_limits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a gate without limits passes everything"):
        judge(write(tmp_path / "today.json"), Asked(options={"max_size": None}))
