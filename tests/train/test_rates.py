"""How the learning rate goes."""

import pytest

from compress.train.rates import RATES, factor


@pytest.mark.parametrize("name", RATES)
def test_every_rate_starts_at_one_and_never_leaves_zero_to_one(name):
    values = [RATES[name](step / 50) for step in range(51)]
    assert values[0] == 1
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values, reverse=True)


def test_rates_worked_by_hand():
    assert RATES["cosine"](0.5) == pytest.approx(0.5)
    assert RATES["cosine"](1 / 3) == pytest.approx(0.75)
    assert RATES["linear"](0.25) == 0.75


def test_the_warm_up_climbs_to_one_and_never_starts_at_zero():
    found = [factor(RATES["cosine"], step, 14, 4) for step in range(14)]
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[4:] == sorted(found[4:], reverse=True)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert factor(RATES["cosine"], 0, 10, 0) == 1
