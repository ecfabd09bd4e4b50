"""The algebra of folding."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.fold.batchnorm import absorb


def norm(channels, affine=True, seed=0):
    chance = torch.Generator().manual_seed(seed)
    made = nn.BatchNorm2d(channels, affine=affine).double().eval()
    made.running_mean.copy_(torch.randn(channels, generator=chance))
    made.running_var.copy_(torch.rand(channels, generator=chance) + 0.1)
    if affine:
        made.weight.data.copy_(torch.randn(channels, generator=chance))
        made.bias.data.copy_(torch.randn(channels, generator=chance))
    return made


@given(
    outputs=st.integers(1, 5),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    affine=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_the_folded_layer_is_the_layer_and_its_batch_norm(outputs, groups, bias, affine, seed):
    torch.manual_seed(seed)
    conv = nn.Conv2d(4, outputs * groups, 3, groups=groups, bias=bias).double()
    after = norm(outputs * groups, affine, seed)
    weight, new_bias = absorb(
        conv.weight, conv.bias, after.running_mean, after.running_var, after.weight, after.bias, after.eps
    )
    images = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = after(conv(images))
        found = nn.functional.conv2d(images, weight, new_bias, groups=groups)
        wrong = nn.functional.conv2d(images, weight * 1.01, new_bias, groups=groups)
    # float64 sums of 36 terms: a hundred units in the last place of the largest value
    tolerance = 100 * torch.finfo(torch.float64).eps * float(expected.abs().max() + 1)
    assert float((found - expected).abs().max()) <= tolerance
    assert float((wrong - expected).abs().max()) > tolerance


def test_the_result_has_the_type_of_the_weight():
    after = norm(3).float()
    weight, bias = absorb(
        torch.ones(3, 2, dtype=torch.float16), None, after.running_mean, after.running_var, None, None, 1e-5
    )
    assert (weight.dtype, bias.dtype) == (torch.float16, torch.float16)


def test_a_batch_norm_worked_by_hand():
    one = torch.tensor([1.0])
    weight, bias = absorb(torch.tensor([[3.0]]), torch.tensor([2.0]), 4 * one, 3 * one, 6 * one, 5 * one, 1.0)
    # s = 6 / sqrt(3 + 1) = 3; W' = 3 * 3; b' = 3 * (2 - 4) + 5
    assert (float(weight), float(bias)) == (9.0, -1.0)
