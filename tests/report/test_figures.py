import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.report import figures
from compress.report.figures import Interval


def answers(both: int, gained: int, lost: int, neither: int) -> tuple[str, str]:
    """The answers of a baseline and a candidate with so many images of each kind."""
    return (
        "1" * both + "0" * gained + "1" * lost + "0" * neither,
        "1" * both + "1" * gained + "0" * lost + "0" * neither,
    )


def test_the_accuracy_interval_is_that_of_newcombe_1998() -> None:
    found = figures.accuracy_interval(100 * 81 / 263, 263)
    assert (found.low, found.high) == pytest.approx((25.53, 36.62), abs=0.005)
    assert found.low * 1.01 != pytest.approx(25.53, abs=0.005)


def test_at_ten_thousand_images_an_accuracy_is_known_to_half_a_point() -> None:
    found = figures.accuracy_interval(91.73, 10_000)
    assert 0.5 < (found.high - found.low) / 2 < 0.6
    assert found.holds(91.73)


@pytest.mark.parametrize("accuracy", [0, 100])
def test_no_interval_leaves_the_possible(accuracy: float) -> None:
    found = figures.accuracy_interval(accuracy, 50)
    assert 0 <= found.low < found.high <= 100


@pytest.mark.parametrize(("gained", "lost"), [(6, 16), (16, 6), (0, 10), (40, 40), (1, 0)])
def test_mcnemar_is_exact(gained: int, lost: int) -> None:
    """The two-sided binomial tail, counted out."""
    tail = sum(math.comb(gained + lost, each) for each in range(min(gained, lost) + 1)) / 2 ** (gained + lost)
    found = figures.paired(*answers(900, gained, lost, 50))
    assert found.p == pytest.approx(min(1, 2 * tail), rel=1e-9)
    assert found.p != pytest.approx(min(1, 2 * tail) * 1.01, rel=1e-9)
    assert (found.gained, found.lost) == (gained, lost)
    assert found.change == pytest.approx(100 * (gained - lost) / found.images)


def test_the_same_answers_show_no_difference() -> None:
    found = figures.paired(*answers(90, 0, 0, 10))
    assert not found.shown
    assert found.p == 1
    assert found.interval.holds(0)


def test_a_lopsided_change_is_shown_and_an_even_one_is_not() -> None:
    assert figures.paired(*answers(900, 5, 40, 55)).shown
    assert not figures.paired(*answers(900, 40, 40, 20)).shown


def test_the_interval_of_a_change_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    shares = (0.90, 0.02, 0.04, 0.04)
    truth = 100 * (shares[1] - shares[2])
    held = sum(figures.paired(*answers(*rng.multinomial(2000, shares))).interval.holds(truth) for _ in range(500))
    slack = 3 * math.sqrt(0.95 * 0.05 / 500)
    assert abs(held / 500 - 0.95) < slack


def test_answers_to_different_images_are_not_paired() -> None:
    with pytest.raises(ValueError, match="2 and 3 images cannot be paired"):
        figures.paired("11", "110")
    with pytest.raises(ValueError, match="0 and 0 images"):
        figures.paired("", "")


@pytest.mark.parametrize(("count", "share"), [(6, 0.5), (20, 0.5), (31, 0.5), (500, 0.99), (60, 0.9)])
def test_the_interval_of_a_quantile_is_as_narrow_as_95_per_cent_allow(count: int, share: float) -> None:
    """The chance that so many of `count` samples lie below the quantile, counted out for the samples chosen."""
    found = figures.quantile_interval([float(each) for each in range(count)], share)
    low, high = round(found.low), round(found.high)

    def below(most: int) -> float:
        return sum(math.comb(count, each) * share**each * (1 - share) ** (count - each) for each in range(most + 1))

    assert below(low) <= 0.025 < below(low + 1)
    assert 1 - below(high) <= 0.025 < 1 - below(high - 1)


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (5, 0.5), (100, 0.99)])
def test_too_few_samples_leave_an_interval_open(count: int, share: float) -> None:
    assert not figures.quantile_interval([1.0 + each for each in range(count)], share).bounded


def test_an_interval_open_at_one_end_keeps_the_other() -> None:
    found = figures.quantile_interval([float(each) for each in range(100)], 0.99)
    assert 90 < found.low < 99
    assert found.high == math.inf


points = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 100)), min_size=1, max_size=20)


@given(points)
def test_no_point_beats_one_of_the_front(found: list[tuple[float, float]]) -> None:
    for each in figures.front(found):
        cost, accuracy = found[each]
        assert not any(other[0] <= cost and other[1] >= accuracy and other != (cost, accuracy) for other in found)


@given(points)
def test_every_other_point_is_beaten_by_one_of_the_front(found: list[tuple[float, float]]) -> None:
    front = figures.front(found)
    for place, (cost, accuracy) in enumerate(found):
        if place not in front:
            assert any(found[each][0] <= cost and found[each][1] >= accuracy for each in front)


def test_mean_and_spread_are_those_of_a_sample() -> None:
    assert figures.spread([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx((5, math.sqrt(32 / 7)))


def test_an_interval_holds_its_own_ends() -> None:
    assert Interval(1, 2).holds(1)
    assert Interval(1, 2).holds(2)
    assert not Interval(1, 2).holds(2.01)
