"""Gates whose limits are against reports recorded before, perhaps on another machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded

from compress import gate
from compress.errors import CompressError, UsageError
from compress.limit import Limit
from compress.report import report as reports
from compress.report.report import Report


def recorded_before(folder: Path, **changes: Any) -> dict[str, Report]:
    return {"main.json": recorded.report(folder / "before", recorded.entry(), recorded.int8(**changes))}


def test_times_from_another_machine_are_judged_where_it_is_told_not_to_matter(tmp_path: Path) -> None:
    limit = Limit(metric="latency", max="1s", batch=64)
    [result] = gate.check(recorded.report(tmp_path), [limit], here=recorded.OTHER_MACHINE, any_machine=True)
    assert result.status == "passed"
    assert result.reason == "200 samples, recorded on another machine than this one: different cpu, cores"
    limit = Limit(metric="latency", max_ratio="1.1x", batch=64, against="main.json")
    before = recorded_before(tmp_path, environment=recorded.OTHER_MACHINE)
    [result] = gate.check(recorded.report(tmp_path), [limit], before, any_machine=True)
    assert result.status == "passed"
    assert "another machine than that of main.json" in result.reason


@pytest.mark.parametrize(
    ("limit", "before", "status"),
    [
        ({"metric": "size", "max_ratio": "1.02x"}, {"size": 300_000}, "passed"),
        ({"metric": "size", "max_ratio": "1.02x"}, {"size": 290_000}, "failed"),
        ({"metric": "top1", "max_drop": "0.1pp"}, {"accuracy": 91.85}, "passed"),
        ({"metric": "top1", "max_drop": "0.09pp"}, {"accuracy": 91.85}, "failed"),
        ({"metric": "latency", "max_ratio": "1.1x", "batch": 64}, {}, "passed"),
        ({"metric": "latency", "max_ratio": "1.1x", "batch": 64}, {"speedup": 2.6}, "failed"),
        ({"metric": "latency", "min_speedup": "1x", "batch": 64}, {}, "inconclusive"),
        ({"metric": "latency", "max_ratio": "1.1x", "batch": 64}, {"environment": recorded.OTHER_MACHINE}, "incomparable"),
        ({"metric": "load_time", "max_ratio": "1.1x"}, {}, "missing"),
    ],
)  # fmt: skip
def test_a_limit_can_be_against_a_recorded_report(
    tmp_path: Path, limit: dict[str, Any], before: dict[str, Any], status: str
) -> None:
    [result] = gate.check(
        recorded.report(tmp_path), [Limit(**limit, against="main.json")], recorded_before(tmp_path, **before)
    )
    assert result.status == status


def test_a_subject_that_the_recorded_report_does_not_have_is_missing(tmp_path: Path) -> None:
    before = {"main.json": recorded.report(tmp_path / "before", recorded.entry(), recorded.pruned())}
    [result] = gate.check(
        recorded.report(tmp_path), [Limit(metric="size", max_ratio="1x", against="main.json")], before
    )
    assert (result.status, result.reason) == (
        "missing",
        "the size of resnet20-int8 in main.json was not measured like this",
    )


def test_of_several_recorded_under_one_name_only_the_same_file_is_meant(tmp_path: Path) -> None:
    twins = [
        replace(recorded.int8(size=size), subject=replace(recorded.int8().subject, digest=recorded.digest(str(size))))
        for size in (303_000, 400_000)
    ]
    before = {"main.json": recorded.report(tmp_path / "before", recorded.entry(), *twins)}
    limit = Limit(metric="size", max_ratio="1x", against="main.json")
    [result] = gate.check(recorded.report(tmp_path, recorded.entry(), twins[1]), [limit], before)
    assert (result.status, result.value) == ("passed", 1)
    [result] = gate.check(recorded.report(tmp_path), [limit], before)
    assert result.status == "missing"
    assert result.reason == "2 subjects are called resnet20-int8 in main.json, and none of them is this file"


def test_recorded_reports_are_read_beside_the_limits(tmp_path: Path) -> None:
    (tmp_path / "main.json").write_text(reports.dumps(recorded.report(tmp_path)))
    limits = [Limit(metric="size", max_ratio="1x", against="main.json"), Limit(metric="size", max="1GB")]
    found = gate.references(limits, tmp_path)
    assert [each.status for each in gate.check(recorded.report(tmp_path), limits, found)] == ["passed", "passed"]
    with pytest.raises(UsageError, match="is against a report that was not given"):
        gate.check(recorded.report(tmp_path), limits)
    with pytest.raises(CompressError, match="cannot read the compress report"):
        gate.references(limits, tmp_path / "elsewhere")
