"""Timing by turns, on a clock that passes only when told to."""

import itertools
import math
import random

import numpy as np
import pytest

from compress.errors import UsageError
from compress.interleave import Effort, interleave, sample, spread, turn, warm_up
from compress.interval import ratio_interval
from compress.runtime.null import Clock

NEVER = 10**18
STANDARD = Effort()


class Machine:
    """A computer with one simulated clock, on which a run of `seconds` takes a noisy multiple of them.

    With `load`, other work doubles the time of everything in some of its 40 ms slices.
    """

    def __init__(self, seed: int, noise: float, load: bool = False):
        self.clock = Clock()
        self.random = random.Random(seed)
        self.noise, self.load = noise, load
        self.busy = [self.random.random() < 0.3 for _ in range(997)]

    def run(self, seconds: float):
        def answer():
            slice_of_time = self.clock.now // 40_000_000
            factor = 2 if self.load and self.busy[slice_of_time % len(self.busy)] else 1
            self.clock.spend(seconds * factor * self.random.lognormvariate(0, self.noise))

        return answer


def measure(machine: Machine, *seconds: float, effort: Effort = STANDARD):
    order = np.random.default_rng(machine.random.randrange(2**32))
    return interleave([machine.run(each) for each in seconds], effort, order, machine.clock)


def known(machine: Machine, candidate: float):
    return ratio_interval(measure(machine, 0.0005, 0.0005 * candidate).ratios(1))


@pytest.mark.parametrize(("noise", "load"), [(0.02, False), (0.08, True)])
def test_the_same_network_against_itself_is_called_equal(noise, load):
    """95 % are promised; of 200 runs at least 93 % may be asked."""
    intervals = [known(Machine(seed, noise, load), 1.0) for seed in range(200)]
    assert sum(interval.low <= 1 <= interval.high for interval in intervals) >= 0.93 * 200
    assert not any(interval.low > 1.05 for interval in intervals), "a limit of 5 % was called broken"


@pytest.mark.parametrize(("noise", "load"), [(0.02, False), (0.08, True)])
def test_ten_per_cent_more_time_is_caught(noise, load):
    intervals = [known(Machine(seed, noise, load), 1.1) for seed in range(100)]
    assert sum(interval.low > 1.05 for interval in intervals) >= 95
    assert not any(interval.high <= 1.05 for interval in intervals), "a limit of 5 % was called kept"


def test_the_ratio_is_the_ratio_of_the_costs():
    timed = measure(Machine(0, noise=0.0), 0.001, 0.0004, 0.003)
    assert timed.ratios(1) == pytest.approx([0.4] * 10)
    assert timed.ratios(2) == pytest.approx([3.0] * 10)
    assert timed.noise == pytest.approx(0, abs=1e-9)


def test_baseline_and_candidates_take_turns_in_random_order():
    clock, log = Clock(), []

    def run(name):
        def answer():
            log.append(name)
            clock.spend(0.001)

        return answer

    timed = interleave([run("a"), run("b"), run("c")], Effort(), np.random.default_rng(0), clock)
    turns = ["".join(group) for _, group in itertools.groupby(log[-20 * 30 :])]
    assert len(timed.series[0].rounds) == 10
    orders = {tuple(log[-20 * 30 :][start : start + 60 : 20]) for start in range(0, 600, 60)}
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(orders) >= 3
    assert all(len(each) % 20 == 0 for each in turns)


def test_a_precise_ratio_ends_the_rounds_and_a_noisy_one_adds_more():
    quiet, noisy = measure(Machine(0, 0.01), 0.001, 0.001), measure(Machine(0, 0.2), 0.001, 0.001)
    assert len(quiet.series[0].rounds) == 10
    assert len(noisy.series[0].rounds) > 30
    assert ratio_interval(noisy.ratios(1)).precision <= 0.02


def test_rounds_are_looked_at_only_when_their_number_has_grown_by_half():
    counts = {len(measure(Machine(seed, 0.1), 0.001, 0.001).series[0].rounds) for seed in range(30)}
    assert counts <= {10, 15, 23, 35, 53, 80, 100}
    assert len(counts) > 2


def test_the_seconds_end_the_rounds():
    machine = Machine(0, 0.5)
    timed = measure(machine, 0.001, 0.001, effort=Effort(precision=1e-6, seconds=2, rounds=10_000))
    assert 2 <= machine.clock.now / 1e9 < 2 + 2 * 2 * 20 * 0.001 * 2
    assert len(timed.series[0].rounds) < 60


def test_six_rounds_are_made_whatever_they_take():
    timed = measure(Machine(0, 0.1), 1.0, 1.0, effort=Effort(seconds=1))
    assert [len(series.rounds) for series in timed.series] == [6, 6]
    assert math.isfinite(ratio_interval(timed.ratios(1)).high)


def test_the_number_of_rounds_ends_them():
    timed = measure(Machine(0, 0.5), 0.001, 0.001, effort=Effort(precision=1e-6, rounds=12))
    assert len(timed.series[0].rounds) == 12


def test_a_baseline_alone_is_timed_too():
    assert len(measure(Machine(0, 0.1), 0.001).series[0].samples) == 10


def test_a_turn_is_twenty_runs_and_five_milliseconds():
    def runs(seconds):
        clock = Clock()
        return turn(lambda: clock.spend(seconds), clock)

    assert len(runs(1.0)) == 20
    assert len(runs(0.0002)) == 25
    assert sum(runs(0.00001)) == pytest.approx(0.005)
    assert len(runs(0)) == 2000
    assert runs(0.0003)[0] == pytest.approx(0.0003)


def test_interrupted_runs_do_not_move_a_turns_time():
    assert sample([1.0] * 15 + [50.0] * 5) == 1.0
    assert sample([1.0] * 4 + [1.01] * 16) == pytest.approx(1.01, abs=0.01)


def test_the_spread_is_that_of_the_middle_half():
    assert spread([1.0] * 20) == 0
    assert spread([0.9] * 5 + [1.0] * 10 + [1.2] * 5 + [9.0]) == pytest.approx(0.2, abs=0.11)
    assert measure(Machine(0, 0.3), 0.001, 0.001).noise > 0.1 > measure(Machine(0, 0.01), 0.001, 0.001).noise


def test_warming_up_goes_on_as_long_as_runs_get_faster():
    clock = Clock()
    costs = itertools.chain((0.01 * 0.8**number for number in range(10) for _ in range(5)), itertools.repeat(0.001))
    assert warm_up(lambda: clock.spend(next(costs)), clock, NEVER)
    assert next(costs) == 0.001


def test_getting_slower_is_not_waited_for():
    clock = Clock()
    costs = (0.01 * 1.1**number for number in range(100) for _ in range(5))
    assert warm_up(lambda: clock.spend(next(costs)), clock, NEVER)
    assert clock.now < 0.3e9


def test_a_warm_up_without_end_is_given_up_and_said():
    clock = Clock()
    costs = (0.9**number for number in range(1000) for _ in range(5))
    assert not warm_up(lambda: clock.spend(next(costs)), clock, NEVER)
    assert not warm_up(lambda: clock.spend(1.0), clock, clock.now + 1)
    timed = measure(Machine(0, 0.0), 1.0, effort=Effort(seconds=1))
    assert not timed.series[0].steady


def test_progress_ends_full():
    seen = []
    machine = Machine(0, 0.0)
    order = np.random.default_rng(0)
    interleave([machine.run(0.001)] * 2, Effort(), order, machine.clock, lambda *news: seen.append(news), "batch 8")
    assert seen[0] == ("batch 8", 1, 100, "round 1")
    assert seen[-1][1:3] == (100, 100)


@pytest.mark.parametrize(
    "wrong",
    [{"precision": 0}, {"precision": 1.5}, {"seconds": 0}, {"seconds": math.inf}, {"seconds": math.nan}, {"rounds": 5}],
)
def test_an_impossible_effort_is_refused(wrong):
    with pytest.raises(UsageError, match="cannot measure to a precision of"):
        Effort(**wrong)
