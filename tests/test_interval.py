"""How far a ratio can be trusted."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import CompressError
from compress.interval import RESOLUTION, Interval, latency_interval, ratio_interval

RATIOS = st.lists(st.floats(0.01, 100), min_size=6, max_size=60)


@settings(deadline=None)
@given(RATIOS)
def test_the_interval_lies_around_the_median_and_among_the_ratios(ratios):
    low, median, high = ratio_interval(ratios)
    assert min(ratios) <= low <= median <= high <= max(ratios)
    assert median == np.median(ratios)


@settings(deadline=None)
@given(RATIOS, st.floats(0.1, 10))
def test_another_unit_of_time_scales_the_interval_with_it(ratios, factor):
    scaled = ratio_interval([factor * ratio for ratio in ratios])
    assert scaled == pytest.approx([factor * end for end in ratio_interval(ratios)])


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5))
def test_too_few_ratios_say_nothing(ratios):
    interval = ratio_interval(ratios)
    assert (interval.low, interval.high) == (0, math.inf)
    assert interval.precision == math.inf


@pytest.mark.parametrize(("count", "place"), [(6, 1), (9, 2), (20, 6), (100, 40)])
def test_no_narrower_interval_would_keep_the_level(count, place):
    """2 P(B < k), the chance that the true median lies outside the k-th ratios from both ends."""

    def outside(k):
        return 2 * sum(math.comb(count, below) for below in range(k)) / 2**count

    assert outside(place) <= 0.05 < outside(place + 1)
    low, _, high = ratio_interval([1 + number for number in range(count)])
    assert (low, high) == (place, count + 1 - place)


def test_the_true_median_is_inside_as_often_as_the_level_says():
    random = np.random.default_rng(0)
    runs, count, level = 400, 23, 0.95
    intervals = [ratio_interval(random.lognormal(0, 0.1, count), level) for _ in range(runs)]
    allowed = 3 * math.sqrt(level * (1 - level) / runs)
    assert sum(low <= 1 <= high for low, _, high in intervals) / runs >= level - allowed
    assert sum(low <= 1.1 <= high for low, _, high in intervals) / runs < level - allowed


@pytest.mark.parametrize("ratios", [[], [1.0, 0.0], [1.0, -0.5, 1.0]])
def test_ratios_no_times_can_have_are_refused(ratios):
    with pytest.raises(CompressError, match="latency ratios are above zero"):
        ratio_interval(ratios)


def test_precision_is_half_the_width_as_a_share():
    assert Interval(0.39, 0.40, 0.41).precision == pytest.approx(0.025)


def test_a_latency_is_known_no_better_than_two_sessions_agree():
    many = [2 + 1e-6 * number for number in range(101)]
    assert latency_interval(many).precision == pytest.approx(RESOLUTION, rel=1e-3)
    wide = [1 + 0.01 * number for number in range(21)]
    rounds, files = ratio_interval(wide), latency_interval(wide)
    assert files.median == rounds.median
    assert files.median - files.low == pytest.approx(
        ((rounds.median - rounds.low) ** 2 + (RESOLUTION * rounds.median) ** 2) ** 0.5
    )
    assert files.high > rounds.high


def test_too_few_rounds_say_nothing_of_files_either():
    assert latency_interval([1.0] * 5) == ratio_interval([1.0] * 5)


def test_no_latency_is_below_nothing():
    assert latency_interval([1e-9] * 10 + [1.0] * 11).low == 0
