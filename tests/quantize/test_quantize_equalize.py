"""Channels of neighbouring layers on one range: another network of the same function."""

import pytest
import torch
from quantizable import SHAPE, images, network
from repairable import chain, distance, hard, quantized
from torch import nn

from compress.quantize.draft import equalized
from compress.quantize.equalize import Pair, equalize

EXACT = 1e-5
"""Each factor is rounded to 24 bits where it divides and where it multiplies, and a sum of 144 products follows."""


def ranges(made):
    """The largest weight of each channel, where it is made and where it is read."""
    first, second, third = (made[place].weight.detach() for place in (0, 2, 4))
    return [
        (first.abs().amax((1, 2, 3)), second.abs().amax((1, 2, 3))),
        (second.abs().amax((1, 2, 3)), third.abs().amax((0, 2, 3))),
    ]


@pytest.mark.parametrize("given", [chain(), hard(), network("residual")], ids=["chain", "hard", "residual"])
def test_equalizing_keeps_the_function(given):
    made, found, _ = equalize(given, SHAPE)
    assert found
    with torch.no_grad():
        exact, again = given(images()), made(images())
    assert (again - exact).abs().max() <= EXACT * exact.abs().max()
    assert (1.01 * again - exact).abs().max() > EXACT * exact.abs().max()
    assert any(not made.state_dict()[name].equal(tensor) for name, tensor in given.state_dict().items())


def test_a_channel_has_the_same_range_on_both_sides_through_a_depthwise_chain():
    for made, read in ranges(equalize(hard(), SHAPE)[0]):
        torch.testing.assert_close(made, read, rtol=0.02, atol=0)
    assert max((made / read).max() for made, read in ranges(hard())) > 100


def test_the_network_given_stays_as_it_is():
    given = hard()
    equalize(given, SHAPE)
    assert all(tensor.equal(hard().state_dict()[name]) for name, tensor in given.state_dict().items())


def test_a_relu6_lets_no_factor_through_and_is_named():
    _, found, cut = equalize(chain(nn.ReLU6), SHAPE)
    assert found == ()
    assert cut == (Pair("0.weight", "0.bias", "2.weight"), Pair("2.weight", "2.bias", "4.weight"))
    made = equalized(quantized(chain(nn.ReLU6)))
    assert made.remarks == ("0 pairs of layers", "2 left for the ReLU6 between them, which no factor passes through")


def test_grouped_convolutions_are_evened_out_by_their_own_inputs():
    given = chain(groups=4)
    made, found, _ = equalize(given, SHAPE)
    assert len(found) == 2
    with torch.no_grad():
        torch.testing.assert_close(made(images()), given(images()), rtol=1e-4, atol=1e-5)


def test_zeros_stay_zeros_and_dead_channels_stay_as_they_are():
    given = hard()
    with torch.no_grad():
        given[0].weight[3] = 0
        given[2].weight[5, :, 1] = 0
    made, _, _ = equalize(given, SHAPE)
    for name, tensor in given.state_dict().items():
        assert ((tensor == 0) == (made.state_dict()[name] == 0)).all()
    assert made[0].bias[3] == given[0].bias[3]


@pytest.mark.parametrize("scales", ["tensor", "channel"])
def test_rescaled_channels_collapse_and_equalizing_brings_them_back(scales):
    """A scale for each channel of a weight does not help activations, which have one for all."""
    given, easy = hard(), chain()
    collapsed = quantized(given, weight_scales=scales)
    assert distance(collapsed, given) > 20 * distance(quantized(easy, weight_scales=scales), easy)
    assert distance(equalized(collapsed), given) < 2 * distance(quantized(easy, weight_scales=scales), easy)
