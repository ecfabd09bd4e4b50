import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.prune.schedules import SCHEDULES, cubic, linear, one_shot, rounds_done

SHARES = st.floats(0, 1)
GRADUAL = [linear, cubic]


@pytest.mark.parametrize(
    ("schedule", "initial", "final", "done", "expected"),
    [
        (one_shot, 0.2, 0.8, 0.0, 0.8),
        (linear, 0.2, 0.8, 0.25, 0.35),
        (cubic, 0.0, 0.8, 0.5, 0.7),  # 0.8 - 0.8 / 8
        (cubic, 0.2, 0.8, 0.25, 0.546875),  # 0.8 - 0.6 * 27 / 64
        (cubic, 0.5, 0.9, 0.9, 0.8996),  # 0.9 - 0.4 / 1000
    ],
)
def test_the_values_are_those_worked_by_hand(schedule, initial, final, done, expected):
    assert schedule(initial, final, done) == pytest.approx(expected, abs=1e-12)
    assert schedule(initial, final, done) != pytest.approx(1.01 * expected, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@given(initial=SHARES, final=SHARES)
def test_every_schedule_ends_at_the_final_share(schedule, initial, final):
    assert schedule(initial, final, 1.0) == pytest.approx(final, abs=1e-12)


@pytest.mark.parametrize("schedule", GRADUAL)
@given(initial=SHARES, final=SHARES, one=SHARES, other=SHARES)
def test_gradual_ones_begin_where_it_is_and_never_turn_back(schedule, initial, final, one, other):
    assert schedule(initial, final, 0.0) == pytest.approx(initial, abs=1e-12)
    early, late = (schedule(initial, final, done) for done in sorted((one, other)))
    assert early <= late + 1e-12 if initial <= final else early >= late - 1e-12


def test_cubic_takes_seven_eighths_in_the_first_half():
    assert cubic(0, 1, 0.5) == 0.875


def test_rounds_are_spread_evenly_and_all_are_done_at_the_end_and_after():
    assert [rounds_done(taken, 8, 4) for taken in range(11)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert [rounds_done(taken, 3, 5) for taken in range(5)] == [0, 1, 3, 5, 5]
