import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded

from compress import gate
from compress.errors import UsageError
from compress.gate import Result
from compress.limit import Limit
from compress.measurement import Entry, Measurement
from compress.report import report as reports
from compress.report.report import Report

BASELINE, CANDIDATE = recorded.entry(), recorded.int8()


def judged(folder: Path, *entries: Entry, **limit: Any) -> Result:
    [result] = gate.check(recorded.report(folder, *entries), [Limit(**limit)])
    return result


def of_ratios(*ratios: float) -> Report:
    """A baseline and a candidate with those latency ratios, one a round, and nothing else."""
    baseline, candidate = (
        replace(each, measurements=(), layers=(), correct=None, parity=()) for each in (BASELINE, CANDIDATE)
    )
    taken = Measurement(
        "latency_ratio", ratios, {"runtime": "onnxruntime", "batch": 1, "baseline": baseline.subject.digest}
    )
    source = reports.Source("measurements.json", "sha256:0", (baseline, replace(candidate, measurements=(taken,))))
    return Report("ratios", baseline.subject.digest, (source,))


def test_a_gate_with_no_limits_passes(tmp_path: Path) -> None:
    results = gate.check(recorded.report(tmp_path), [])
    assert results == ()
    assert gate.violations(results) == ()
    assert gate.outcome(results) == "passed"


@pytest.mark.parametrize(
    ("limit", "status"),
    [
        ({"metric": "size", "max": "303KB"}, "passed"),
        ({"metric": "size", "max": "302999B"}, "failed"),
        ({"metric": "size", "max_ratio": "0.28x"}, "passed"),
        ({"metric": "size", "max_ratio": "0.27x"}, "failed"),
        ({"metric": "size", "min_ratio": "0.27x"}, "passed"),
        ({"metric": "parameters", "max_ratio": "1x"}, "passed"),
        ({"metric": "integer_macs", "min": "100%"}, "passed"),
        ({"metric": "integer_macs", "min": "100.0001%"}, "failed"),
        ({"metric": "top1", "min": "91.75%"}, "passed"),
        ({"metric": "top1", "min": "91.76%"}, "failed"),
    ],
)
def test_exact_figures_are_judged_exactly(tmp_path: Path, limit: dict[str, str], status: str) -> None:
    assert judged(tmp_path, **limit).status == status


def test_accuracy_is_judged_by_the_point_and_the_test_is_told(tmp_path: Path) -> None:
    baseline, candidate = recorded.entry(), recorded.pruned()
    assert judged(tmp_path, baseline, candidate, metric="top1", max_drop="0.83pp").status == "passed"
    result = judged(tmp_path, baseline, candidate, metric="top1", max_drop="0.82pp")
    assert result.status == "failed"
    assert result.value == pytest.approx(0.83)
    assert result.margin == pytest.approx(-0.01)
    assert result.reason.startswith("difference shown, p = ")


@pytest.mark.parametrize(
    ("demand", "status"),
    [("2x", "passed"), ("2.18x", "passed"), ("2.2x", "inconclusive"), ("2.22x", "failed"), ("3x", "failed")],
)
def test_a_speedup_is_judged_by_its_interval(tmp_path: Path, demand: str, status: str) -> None:
    """Thirty ratios around 1 / 2.2 with a spread of 1 %: the interval reaches 0.5 % to each side."""
    result = judged(tmp_path, metric="latency", min_speedup=demand, batch=64)
    assert result.status == status
    assert result.value == pytest.approx(2.2, rel=1e-3)
    assert result.low is not None
    assert result.high is not None
    assert 2.18 < result.low < 2.2 < result.high < 2.22


def test_a_ratio_limit_on_latency_uses_the_interleaved_run(tmp_path: Path) -> None:
    assert judged(tmp_path, metric="latency", max_ratio="0.46x", batch=64).status == "passed"
    assert judged(tmp_path, metric="latency", max_ratio="0.45x", batch=64).status == "failed"
    assert judged(tmp_path, metric="latency", min_ratio="0.45x", batch=64).status == "passed"


@pytest.mark.parametrize("count", [1, 5])
def test_few_rounds_decide_nothing(count: int) -> None:
    [result] = gate.check(of_ratios(*[0.1] * count), [Limit(metric="latency", min_speedup="2x")])
    assert result.status == "inconclusive"
    assert "too few to decide" in result.reason
    assert result.low is None or result.high is None


def test_a_limit_without_conditions_holds_for_everything_measured(tmp_path: Path) -> None:
    found = gate.check(
        recorded.report(tmp_path, recorded.entry(), recorded.int8(), recorded.pruned()),
        [Limit(metric="latency", min_speedup="3x")],
    )
    assert [(each.candidate, each.conditions, each.status) for each in found] == [
        ("resnet20-int8", "onnxruntime, cpu, batch 1, 1 thread", "failed"),
        ("resnet20-int8", "onnxruntime, cpu, batch 64, 1 thread", "failed"),
        ("resnet20-half-int8", "onnxruntime, cpu, batch 1, 1 thread", "passed"),
        ("resnet20-half-int8", "onnxruntime, cpu, batch 64, 1 thread", "passed"),
    ]


def test_a_limit_can_name_its_candidate(tmp_path: Path) -> None:
    both = (recorded.entry(), recorded.int8(), recorded.pruned())
    assert judged(tmp_path, *both, metric="size", max="200KB", candidate="resnet20-half-int8").status == "passed"
    by_digest = recorded.digest("resnet20-half-int8")[:20]
    assert judged(tmp_path, *both, metric="size", max="200KB", candidate=by_digest).candidate == "resnet20-half-int8"
    with pytest.raises(UsageError, match="unknown candidate 'resnet20-half': did you mean resnet20-half-int8"):
        judged(tmp_path, *both, metric="size", max="200KB", candidate="resnet20-half")


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ({"metric": "load_time", "max": "1s"}, "its load_time was not measured"),
        ({"metric": "latency", "max": "1s", "batch": 7}, "its latency was not measured (batch 7)"),
        ({"metric": "latency", "min_speedup": "1x", "runtime": "tensorrt"}, "not measured in turn with the baseline's (tensorrt)"),
    ],
)  # fmt: skip
def test_a_missing_metric_fails(tmp_path: Path, limit: dict[str, Any], why: str) -> None:
    result = judged(tmp_path, **limit)
    assert result.status == "missing"
    assert why in result.reason
    assert gate.outcome((result,)) == "failed"


def test_a_metric_that_the_baseline_lacks_is_missing(tmp_path: Path) -> None:
    bare = replace(recorded.entry(), measurements=recorded.entry().measurements[:1])
    result = judged(tmp_path, bare, recorded.int8(), metric="size", max_ratio="1x")
    assert (result.status, result.reason) == ("missing", "the size of the baseline was not measured like this")


def test_a_report_without_a_candidate_fails_every_limit(tmp_path: Path) -> None:
    result = judged(tmp_path, recorded.entry(), metric="size", max="9GB")
    assert (result.status, result.reason) == ("missing", "the report has no candidate")


def test_ratios_against_another_baseline_do_not_count(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "m", recorded.entry(), recorded.int8(), recorded.pruned())
    found = gate.check(
        reports.from_recordings([path], baseline="resnet20-int8"), [Limit(metric="latency", min_speedup="1x")]
    )
    assert {each.status for each in found} == {"missing"}


def test_a_ratio_with_nothing_says_nothing(tmp_path: Path) -> None:
    floating = recorded.entry(integer=0.0)
    result = judged(tmp_path, floating, recorded.int8(), metric="integer_macs", min_ratio="1x")
    assert (result.status, result.reason) == ("missing", "one of the two is 0, and a ratio with it says nothing")


def test_absolute_times_from_another_machine_name_the_fields_that_differ(tmp_path: Path) -> None:
    limits = [
        Limit(metric="latency", max="1s", batch=64),
        Limit(metric="latency", min_speedup="2x", batch=64),
        Limit(metric="size", max="1GB"),
    ]
    statuses = [each.status for each in gate.check(recorded.report(tmp_path), limits, here=recorded.OTHER_MACHINE)]
    assert statuses == ["incomparable", "passed", "passed"]
    [result, *_] = gate.check(recorded.report(tmp_path), limits, here=recorded.OTHER_MACHINE)
    assert result.reason == "recorded on another machine than this one: different cpu, cores"
    threads = replace(recorded.MACHINE, threads=8)
    assert {each.status for each in gate.check(recorded.report(tmp_path), limits, here=threads)} == {"passed"}
    assert {each.status for each in gate.check(recorded.report(tmp_path), limits)} == {"passed"}


@pytest.mark.parametrize(
    ("hops", "demand", "status", "reason"),
    [
        (recorded.HOPS[:2], "100%", "passed", "2 hops"),
        (recorded.HOPS, "100%", "failed", "tensorrt skipped, tensorrt is not installed"),
        (recorded.HOPS, "50%", "passed", "tensorrt skipped, tensorrt is not installed"),
        ((replace(recorded.HOPS[0], verdict="void"),), "100%", "failed", "prune void, the narrowed network is the masked one"),
        ((), "0%", "missing", "no hop of its parity ledger was recorded"),
    ],
)  # fmt: skip
def test_a_skipped_hop_is_no_pass(tmp_path: Path, hops: tuple[Any, ...], demand: str, status: str, reason: str) -> None:
    result = judged(tmp_path, recorded.entry(), recorded.int8(parity=hops), metric="parity", min=demand)
    assert (result.status, result.reason) == (status, reason)


@pytest.mark.parametrize(("share", "status"), [((50.0,), "passed"), ((49.99,), "failed"), ((), "missing")])
def test_sparsity_is_judged_exactly(tmp_path: Path, share: tuple[float, ...], status: str) -> None:
    candidate = recorded.int8()
    measured = tuple(Measurement("sparsity", (each,)) for each in share)
    candidate = replace(candidate, measurements=(*candidate.measurements, *measured))
    assert judged(tmp_path, recorded.entry(), candidate, metric="sparsity", min="50%").status == status


@pytest.mark.parametrize(
    ("percentile", "bound", "status"),
    [(50, "13ms", "passed"), (50, "12.2ms", "inconclusive"), (50, "11ms", "failed"), (90, "13ms", "passed"), (99, "13ms", "inconclusive"), (99, "12ms", "failed")],
)  # fmt: skip
def test_an_absolute_time_is_judged_by_the_interval_of_its_percentile(
    tmp_path: Path, percentile: int, bound: str, status: str
) -> None:
    """200 samples around 12.2 ms with a spread of 2 %: enough for the median and p90, too few to bound p99 from above."""
    assert judged(tmp_path, metric="latency", max=bound, percentile=percentile, batch=64).status == status


@pytest.mark.parametrize(("metric", "unit"), [("peak_memory", "MB"), ("load_time", "s")])
def test_what_fresh_processes_gave_is_judged_by_its_worst_sample(tmp_path: Path, metric: str, unit: str) -> None:
    scale = 1e6 if unit == "MB" else 1
    found = replace(recorded.int8(), measurements=(Measurement(metric, (1 * scale, 2 * scale, 3 * scale)),))
    for bound, status in (("3", "passed"), ("2.9", "inconclusive"), ("0.9", "failed")):
        assert judged(tmp_path, recorded.entry(), found, metric=metric, max=bound + unit).status == status


def test_a_broken_warning_does_not_fail_the_gate(tmp_path: Path) -> None:
    results = gate.check(recorded.report(tmp_path), [Limit(metric="size", max="1KB", level="warn")])
    assert results[0].status == "failed"
    assert gate.violations(results) == ()
    assert gate.outcome(results) == "passed"


@pytest.mark.parametrize(
    ("demands", "inconclusive", "outcome"),
    [
        (("2x",), "inconclusive", "passed"),
        (("2.2x",), "inconclusive", "inconclusive"),
        (("2.2x",), "fail", "failed"),
        (("2.2x",), "warn", "passed"),
        (("2.2x", "3x"), "inconclusive", "failed"),
        (("2.2x", "3x"), "warn", "failed"),
    ],
)
def test_one_violation_outweighs_what_is_undecided(
    tmp_path: Path, demands: tuple[str, ...], inconclusive: Any, outcome: str
) -> None:
    results = gate.check(
        recorded.report(tmp_path), [Limit(metric="latency", min_speedup=demand, batch=64) for demand in demands]
    )
    assert gate.outcome(results, inconclusive) == outcome


def test_the_exit_codes_are_those_of_the_house() -> None:
    assert gate.EXIT_CODES == {"passed": 0, "failed": 1, "inconclusive": 4}


def test_a_file_against_itself_seldom_raises_an_alarm_and_a_real_loss_always_does() -> None:
    """200 runs of 25 rounds whose ratios scatter by 3 %, against a speed-up of at least 0.95.

    The median of 25 such rounds scatters by 1.2533 * 3 % / 5 = 0.75 %, so that equal files lie 7 of its
    deviations within the limit, and files 10 % slower 6 beyond it.
    """
    rng, limit = np.random.default_rng(0), Limit(metric="latency", min_speedup="0.95x")
    counts = {}
    for slower in (1.0, 1.10):
        found = []
        for _ in range(200):
            ratios = tuple(slower * rng.lognormal(0, 0.03, 25))
            [result] = gate.check(of_ratios(*ratios), [limit])
            found.append(result.status)
        counts[slower] = {status: found.count(status) for status in set(found)}
    assert counts[1.0].get("failed", 0) <= 2
    assert counts[1.0].get("inconclusive", 0) <= 10
    assert counts[1.10]["failed"] >= 198


def test_results_hold_no_number_that_is_not_finite(tmp_path: Path) -> None:
    result = judged(tmp_path, metric="latency", max="13ms", percentile=99, batch=64)
    assert result.high is None
    assert result.low is not None
    assert math.isfinite(result.low)
