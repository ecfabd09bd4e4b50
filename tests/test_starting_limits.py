from dataclasses import replace
from pathlib import Path

import pytest
import recorded

from compress import gate, limit
from compress.measurement import Entry, Measurement
from compress.report import report as reports
from compress.starting_limits import starting_limits

TWIN = replace(recorded.pruned(accuracy=88), subject=replace(recorded.pruned().subject, digest=recorded.digest("twin")))
BARE = replace(recorded.int8(), measurements=recorded.int8().measurements[:1])
FASTER = recorded.int8(speedup=1.0003, size=7, integer=33.333)
NAMED = replace(recorded.int8(), subject=replace(recorded.int8().subject, name='a "b": {c} # d é😀'))


@pytest.mark.parametrize(
    "candidates",
    [
        (),
        (recorded.int8(),),
        (recorded.int8(), recorded.pruned()),
        (recorded.pruned(), TWIN),
        (BARE,),
        (FASTER,),
        (NAMED,),
    ],
    ids=["none", "one", "two", "twins", "bare", "small", "odd name"],
)
def test_a_report_passes_the_limits_drawn_from_it(tmp_path: Path, candidates: tuple[Entry, ...]) -> None:
    report = reports.from_recordings([recorded.write(tmp_path / "m", recorded.entry(), *candidates)])
    (tmp_path / "gate.yaml").write_text(starting_limits(report))
    limits = limit.read(tmp_path / "gate.yaml")
    results = gate.check(report, limits)
    assert len(limits) >= len(candidates)
    assert {each.status for each in results} <= {"passed"}


def test_an_accuracy_near_zero_gets_a_limit_that_can_be_read(tmp_path: Path) -> None:
    baseline = replace(recorded.entry(), measurements=recorded.entry().measurements[:1])
    candidate = replace(recorded.int8(), measurements=(Measurement("top1", (0.1,)),), correct=None)
    report = reports.from_recordings([recorded.write(tmp_path / "m", baseline, candidate)])
    (tmp_path / "gate.yaml").write_text(starting_limits(report))
    [found] = limit.read(tmp_path / "gate.yaml")
    assert str(found) == "top1: at least 0%"


def test_every_kind_of_figure_gets_a_limit(tmp_path: Path) -> None:
    report = reports.from_recordings([recorded.write(tmp_path / "m", recorded.entry(), recorded.int8())])
    (tmp_path / "gate.yaml").write_text(starting_limits(report))
    found = {each.metric for each in limit.read(tmp_path / "gate.yaml")}
    assert found == {"top1", "size", "parameters", "macs", "peak_memory", "integer_macs", "latency"}


def test_zeros_that_are_meant_and_a_whole_ledger_get_a_limit(tmp_path: Path) -> None:
    candidate = recorded.pruned()
    for share, said in ((62.57, "metric: sparsity, min: 62.5%}  # recorded: 62.57 %"), (1.5, "")):
        sparse = replace(candidate, measurements=(*candidate.measurements, Measurement("sparsity", (share,))))
        report = reports.from_recordings([recorded.write(tmp_path / "m", recorded.entry(), sparse)])
        text = starting_limits(report)
        assert said in text
        assert ("sparsity" in text) == bool(said)
        assert "metric: parity, min: 100%}  # recorded: 2 hops passed" in text


@pytest.mark.parametrize(
    "worse", [recorded.int8(accuracy=91.0), recorded.int8(size=320_000), recorded.int8(speedup=1.9), recorded.int8(integer=99.0)]
)  # fmt: skip
def test_a_real_loss_fails_them(tmp_path: Path, worse: Entry) -> None:
    before = reports.from_recordings([recorded.write(tmp_path / "m", recorded.entry(), recorded.int8())])
    (tmp_path / "gate.yaml").write_text(starting_limits(before))
    after = reports.from_recordings([recorded.write(tmp_path / "n", recorded.entry(), worse)])
    assert gate.outcome(gate.check(after, limit.read(tmp_path / "gate.yaml"))) == "failed"


def test_an_accuracy_without_a_baselines_gets_a_floor(tmp_path: Path) -> None:
    blind = replace(recorded.entry(), measurements=recorded.entry().measurements[1:])
    report = reports.from_recordings([recorded.write(tmp_path / "m", blind, recorded.int8())])
    assert "metric: top1, min: 91.2%}  # recorded: 91.75 %" in starting_limits(report)
