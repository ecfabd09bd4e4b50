"""Rounding while a network trains, by numbers worked out by hand."""

import pytest
import torch
from torch import nn

from compress.quantize.bias import LARGEST, quantize_bias
from compress.quantize.qat_graph import normalised, weight_and_bias
from compress.quantize.qat_rounding import PerChannelRounding, Rounding
from compress.quantize.sequence import Q


def rounding(values, *, symmetric=False, learned=False):
    """One of an activation whose range is that of `values`, held."""
    integers = (
        {"dtype": torch.int8, "quant_min": -127, "quant_max": 127}
        if symmetric
        else {"dtype": torch.uint8, "quant_min": 0, "quant_max": 255}
    )
    scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    made = Rounding(learned=learned, qscheme=scheme, **integers)
    return calibrated(made, values)


def of_weight(values, **settings):
    made = PerChannelRounding(
        ch_axis=0, dtype=torch.int8, quant_min=-127, quant_max=127, qscheme=torch.per_channel_symmetric, **settings
    )
    made.size(len(values))
    return calibrated(made, values)


def calibrated(made, values):
    made.calibrating = True
    made.see(values)
    made.calibrating = False
    return made.eval()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shift", [0.0, 2.5])
def test_it_rounds_as_the_exported_operators_do_bit_for_bit(symmetric, shift):
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + shift
    made = rounding(x[:2], symmetric=symmetric)
    scale, zero_point = made.calculate_qparams()
    form = (scale.item(), int(zero_point), made.quant_min, made.quant_max, made.dtype)
    integers = Q.quantize_per_tensor.default(x, *form)
    assert torch.equal(made(x), Q.dequantize_per_tensor.default(integers, *form))
    assert integers.max() == made.quant_max


def test_the_range_of_a_weight_is_the_present_one_and_of_an_activation_follows_slowly():
    weight, activation = of_weight(torch.ones(2, 3)).train(), rounding(torch.tensor([0.0, 1.0])).train()
    weight(torch.full((2, 3), 0.5))
    activation(torch.tensor([-1.0, 3.0]))
    assert weight.max_val.tolist() == [0.5, 0.5]
    assert (activation.min_val.item(), activation.max_val.item()) == pytest.approx((-0.01, 1.02))
    activation.eval()(torch.tensor([-9.0, 9.0]))
    assert activation.max_val.item() == pytest.approx(1.02)


def test_the_gradient_passes_where_nothing_is_cut_off():
    x = torch.tensor([-3.0, 0.2, 1.0, 9.0], requires_grad=True)
    rounding(torch.tensor([-1.0, 1.0]), symmetric=True)(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_a_step_size_learns_by_the_formula_of_its_paper():
    """s = 1/127: of v = -381, 12.7 + 0.3, 127 and 254 the slopes are -127, -0 + (round(v) - v), 0 and 127."""
    made = rounding(torch.tensor([-1.0, 1.0]), symmetric=True, learned=True)
    x = torch.tensor([[-3.0, 12.7 / 127, 1.0, 2.0]])
    made(x).sum().backward()
    assert made.step.grad.item() == pytest.approx((-127 + 0.3 + 0 + 127) / (4 * 127) ** 0.5, abs=1e-4)


def test_each_channel_of_a_weight_has_a_slope_of_its_own():
    made = of_weight(torch.tensor([[1.0, 0.5], [2.0, 0.5]]), learned=True)
    made(torch.tensor([[3.0, 0.0], [0.0, 0.0]])).sum().backward()
    assert made.step.grad.tolist() == pytest.approx([127 / (2 * 127) ** 0.5, 0.0])


@pytest.fixture
def layer():
    """A weight, its batch norm with statistics and a negative and a zero gamma, and its roundings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weight, norm = nn.Parameter(torch.randn(3, 2, 3, 3)), nn.BatchNorm2d(3, eps=0.1)
        norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.0]))
        norm.running_mean.normal_()
    norm.weight.data = torch.tensor([1.5, -0.5, 0.0])
    norm.bias.data = torch.tensor([0.1, 0.2, 0.3])
    return weight, norm, of_weight(torch.zeros(3, 18)).train(), rounding(torch.tensor([0.0, 1.0]))


def test_a_layer_computes_the_same_with_its_batch_norm_learning_and_held(layer):
    """In inference; but for the rounding of the bias, half a step of the product of two scales."""
    weight, norm, own, source = layer
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    norm.train()
    learning, bias = weight_and_bias(norm, source, own, weight, None)
    norm.eval()
    held, shift = weight_and_bias(norm, source, own, weight, None)
    assert bias is None
    one, other = norm(nn.functional.conv2d(x, learning)), normalised(norm, nn.functional.conv2d(x, held, shift))
    step = (own.calculate_qparams()[0] * source.calculate_qparams()[0]).max() / 2
    assert (one - other).abs().max() <= step + 1e-5
    assert normalised(norm, other) is other


def test_a_channel_that_is_switched_off_does_not_spoil_the_gradient(layer):
    weight, norm, own, source = layer
    norm.train()
    found, _ = weight_and_bias(norm, source, own, weight, None)
    normalised(norm, nn.functional.conv2d(torch.randn(2, 2, 5, 5), found)).sum().backward()
    assert weight.grad.isfinite().all() and norm.weight.grad.isfinite().all()


def test_a_bias_is_the_integer_it_becomes_and_still_learns(layer):
    weight, _, own, source = layer
    bias = nn.Parameter(torch.tensor([0.1, -0.2, 3.0]))
    _, rounded = weight_and_bias(None, source, own, weight, bias)
    integers, scale = quantize_bias(bias.detach(), source.calculate_qparams()[0].item(), own.calculate_qparams()[0])
    assert torch.equal(rounded, integers * scale)
    rounded.sum().backward()
    assert bias.grad.tolist() == [1, 1, 1]


def test_a_weight_almost_zero_keeps_a_scale_its_bias_fits(layer):
    _, _, _, source = layer
    weight, bias = torch.full((1, 2, 3, 3), 1e-20), torch.tensor([10.0])
    _, rounded = weight_and_bias(None, source, of_weight(weight).train(), weight, bias)
    assert rounded.item() == pytest.approx(10.0, rel=1e-6)
    assert 10.0 / (source.calculate_qparams()[0].item() * LARGEST) > 1e-20
