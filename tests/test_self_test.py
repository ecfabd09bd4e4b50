"""The benchmark's own false alarms and detections are counted, on a clock of known time."""

from pathlib import Path

import pytest

from compress import self_test
from compress.errors import CompressError
from compress.interleave import Effort
from compress.runtime import null
from compress.self_test import Trials, repeated, trials

RUNS = 20


def test_a_simulated_ten_percent_is_always_shown_and_nothing_hardly_ever() -> None:
    same, slower = self_test.simulated(RUNS)
    # 95 % intervals: of 20 benchmarks of equals more than 5 are wrong once in 3,000 times; the draws here are fixed.
    assert same.injected == 0 and same.wrong == same.runs - same.covering <= 5
    assert slower.injected == pytest.approx(0.1) and (slower.shown, slower.wrong) == (RUNS, 0)
    assert slower.covering >= RUNS - 5
    assert all(0 < half <= 0.03 for half in same.half_widths)


def test_a_benchmark_without_power_misses_what_is_injected() -> None:
    clock = null.Clock()
    alternating = iter(range(10**9))

    def noisy() -> None:
        clock.spend(1e-3 * (1 + next(alternating) // 40 % 2))

    found = trials("noise", noisy, noisy, 0.1, 5, Effort(precision=0.02, seconds=1.0, rounds=8), clock)
    assert (found.shown, found.wrong) == (0, 5)


def test_eleven_answers_take_a_tenth_longer_than_ten() -> None:
    clock = null.Clock()
    for times in (10, 11):
        before = clock()
        repeated(lambda: clock.spend(1e-3), times)()
        assert clock() - before == times * 1_000_000


def test_a_file_is_tested_in_its_runtime_beside_the_simulated_sessions(tmp_path: Path) -> None:
    null.write(tmp_path / "net.null", null.Cost(noise=0.02))
    found = self_test.self_test(tmp_path / "net.null", "null", runs=3, clock=null.CLOCK)
    assert [(each.what, each.injected > 0, each.runs) for each in found] == [
        ("simulated, 5% noise", False, 3),
        ("simulated, 5% noise", True, 3),
        ("net.null, batch 1", False, 3),
        ("net.null, batch 1", True, 3),
    ]
    assert found[-1].shown == 3


def test_a_file_that_cannot_be_opened_is_said_before_anything_is_timed(tmp_path: Path) -> None:
    timed: list[str] = []
    with pytest.raises(CompressError, match="cannot read the ONNX file"):
        self_test.self_test(
            tmp_path / "missing.onnx", "onnxruntime", progress=lambda task, done, total, detail: timed.append(task)
        )
    assert timed == []


def test_false_alarms_are_what_is_shown_of_equals() -> None:
    assert Trials("", 0.0, 2, 18, (0.01,) * 20).wrong == 2
    assert Trials("", 0.1, 19, 18, (0.01,) * 20).wrong == 1
