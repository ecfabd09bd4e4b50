"""Integer biases keep the bias and stay inside int32."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.quantize.bias import LARGEST, quantize_bias, weight_floor

biases = st.lists(st.floats(-(2.0**13), 2.0**13, width=32), min_size=1, max_size=8).map(torch.tensor)
scales = st.floats(2.0**-17, 8.0, width=32)
ROUNDING = 2.0**-22
"""Two float32 roundings, of the scale's product and of the result: 2^-23 of it each."""


@given(biases, scales, st.floats(2.0**-23, 1.0, width=32))
def test_an_integer_bias_is_within_half_a_step_of_the_bias(bias, input_scale, weight_scale):
    weight_scales = torch.maximum(torch.full_like(bias, weight_scale), weight_floor(bias, input_scale))
    integers, scale = quantize_bias(bias, input_scale, weight_scales)
    assert integers.dtype == torch.int32
    error = (integers.double() * scale.double() - bias.double()).abs()
    assert (error <= scale.double() / 2 + ROUNDING * bias.double().abs()).all()


@given(biases, scales)
def test_the_floor_keeps_every_bias_within_half_of_int32(bias, input_scale):
    integers, _ = quantize_bias(bias, input_scale, weight_floor(bias, input_scale).clamp_min(2.0**-100))
    assert (integers.long().abs() <= LARGEST * (1 + 1e-6)).all()


def test_a_near_dead_channel_without_the_floor_is_an_error():
    with pytest.raises(OverflowError):
        quantize_bias(torch.tensor([3.0]), 0.01, torch.tensor([1e-8]))


def test_a_floor_one_per_cent_too_low_is_noticed():
    bias = torch.tensor([3.0])
    with pytest.raises(OverflowError):
        quantize_bias(bias, 0.01, 0.99 * weight_floor(bias, 0.01))
