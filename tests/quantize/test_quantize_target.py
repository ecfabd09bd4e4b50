"""Targets are data, and every target's data makes sense."""

from typing import get_args

import pytest

from compress.errors import UsageError
from compress.quantize.graph import RANGES
from compress.quantize.observers import OBSERVERS
from compress.quantize.step import ObserverName, RunName, TargetName
from compress.quantize.target import RUN, TARGETS, Kind, scheme, target


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_found_by_its_name_and_its_ranges_hold_zero(name):
    found = target(name)
    assert found.name == name
    for integers in (found.activations, found.weights):
        lowest, highest = RANGES[integers.dtype]
        assert lowest <= integers.low <= 0 < integers.high <= highest
        assert not integers.symmetric or integers.low == -integers.high


@pytest.mark.parametrize("name", TARGETS)
def test_no_kind_is_both_computed_and_carried(name):
    found = target(name)
    assert not found.computed & found.carried
    assert found.computed | found.carried <= set(get_args(Kind))
    assert found.bare <= found.carried


def test_weights_have_no_zero_point_for_any_target():
    assert all(found.weights.symmetric for found in TARGETS.values())


def test_the_step_offers_every_target_and_every_observer():
    assert set(get_args(TargetName)) == set(TARGETS)
    assert set(get_args(RunName)) == set(RUN)
    assert set(get_args(ObserverName)) == set(OBSERVERS)


def test_an_unknown_target_lists_those_there_are():
    with pytest.raises(UsageError, match="unknown target 'onnxruntime': did you mean onnxruntime-cpu"):
        target("onnxruntime")


def test_only_torch_is_simulated_and_has_other_integers():
    made = scheme(target("torch"), 4, 6, "tensor")
    assert (made.weights.low, made.weights.high, made.activations.high, made.weight_scales) == (-7, 7, 63, "tensor")
    assert "torch" not in RUN
    for name in RUN:
        assert scheme(target(name)) == target(name)
        with pytest.raises(UsageError, match="computes on 8 bits, with a scale for each output channel"):
            scheme(target(name), weight_bits=4)
