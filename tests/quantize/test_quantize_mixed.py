"""Leaving layers in float until a limit is met: the few that matter, or a refusal that says how near it came."""

import pytest

from compress.quantize.mixed import fewest

MACS = {"a": 40, "b": 30, "c": 20, "d": 10}
ORDER = ["c", "a", "d", "b"]


def losing(**points):
    """A network that loses these points for each layer that is quantized; and the sets that were tried."""
    tried = []

    def drop(left):
        tried.append(left)
        return sum(lost for layer, lost in points.items() if layer not in left)

    return drop, tried


def test_the_shortest_beginning_that_meets_the_limit_is_left():
    drop, _ = losing(c=2.0, a=1.0, d=0.2, b=0.1)
    assert fewest(ORDER, drop, 3.29, MACS) == {"c"}
    assert fewest(ORDER, drop, 1.31, MACS) == {"c"}
    assert fewest(ORDER, drop, 0.31, MACS) == {"c", "a"}
    assert fewest(ORDER, drop, 0.11, MACS) == {"c", "a", "d"}


def test_a_layer_that_the_limit_can_do_without_goes_back():
    drop, _ = losing(c=0.0, a=0.0, d=1.0, b=0.0)
    assert fewest(ORDER, drop, 0.5, MACS) == {"d"}


def test_every_answer_was_measured():
    drop, tried = losing(c=2.0, a=1.0, d=0.2, b=0.1)
    assert fewest(ORDER, drop, 0.31, MACS) in tried


def test_a_limit_that_all_layers_but_one_do_not_meet_is_not_met():
    drop, _ = losing(c=2.0, a=1.0, d=0.2, b=0.1)
    assert fewest(ORDER, drop, 0.05, MACS) is None
    assert fewest(["a"], drop, 0.0, MACS) is None


@pytest.mark.parametrize("count", [2, 3, 7, 16, 33])
def test_halving_finds_what_trying_all_would(count):
    layers = [f"layer{number}" for number in range(count)]
    drop, _ = losing(**dict.fromkeys(layers, 1.0))
    for limit in range(1, count):
        assert len(fewest(layers, drop, limit, dict.fromkeys(layers, 1))) == count - limit
