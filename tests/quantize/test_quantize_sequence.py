"""The form in which quantization reads a network: the same function, with nothing in place."""

from functools import cache

import pytest
import torch
from quantizable import NETWORKS, SHAPE, images, network
from torch import nn
from torch.nn import functional

from compress.errors import CompressError
from compress.quantize.sequence import A, arguments, batch_norm, calls, operators, put_argument, title, trace

SINGLE = 2.0**-23


@cache
def traced(name):
    """A small network, and its trace."""
    return network(name), trace(network(name), SHAPE)


def called(module, shape=SHAPE):
    return [call.target for call in calls(trace(module.eval(), shape))]


class Do(nn.Module):
    """A network of one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 7])
def test_tracing_keeps_the_logits_for_any_batch(name, count):
    (made, graph), x = traced(name), images(count)
    with torch.no_grad():
        exact, again = made(x), graph(x)
    # A mean as an average pool sums the same numbers in another order; nothing else differs.
    tolerance = 16 * 16 * SINGLE * exact.abs().max()
    assert (again - exact).abs().max() <= tolerance
    assert (again - 1.01 * exact).abs().max() > tolerance


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_computed_in_place_or_dropped_out(name):
    titles = {title(call) for call in calls(traced(name)[1])}
    assert not [word for word in titles if "_." in word or "dropout" in word or "silu" in word or "hardswish" in word]


def test_an_activation_in_place_changes_what_is_read_afterwards():
    def twice(x):
        y = x * 1.0
        return functional.relu(y, inplace=True) + y

    x = images()
    assert torch.equal(trace(Do(twice), SHAPE)(x), twice(x))


def test_means_and_even_adaptive_pools_are_average_pools_and_uneven_ones_stay():
    assert called(Do(lambda x: x.mean((-1, 2), keepdim=True))) == [A.avg_pool2d.default]
    assert called(Do(lambda x: functional.adaptive_avg_pool2d(x, (4, 8)))) == [A.avg_pool2d.default]
    assert called(Do(lambda x: functional.adaptive_avg_pool2d(x, 5))) == [A.adaptive_avg_pool2d.default]
    assert called(Do(lambda x: x.mean(1))) == [A.mean.dim]


def test_a_batch_norm_that_stays_goes_by_a_name_torchao_does_not_know():
    assert called(nn.BatchNorm2d(3))[0] is batch_norm


def test_the_digest_depends_on_the_wiring_and_not_on_the_object():
    forward = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)).eval()
    again = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)).eval()
    swapped = Do(lambda x: forward[0](forward[1](forward[2](x)))).eval()
    crossed = Do(lambda x: x.relu() + x.sigmoid().relu())
    straight = Do(lambda x: x.sigmoid() + x.relu().relu())
    digests = [operators(trace(each, SHAPE)) for each in (forward, again, swapped, crossed, straight)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_an_argument_inside_a_list_can_be_read_and_replaced():
    graph = trace(Do(lambda x: torch.cat([x, x.relu()], 1)), SHAPE)
    relu, cat = calls(graph)
    assert arguments(cat)[1] is relu
    put_argument(cat, 0, relu)
    graph.recompile()
    x = images()
    assert torch.equal(graph(x), torch.cat([x.relu(), x.relu()], 1))


def test_a_network_that_cannot_be_followed_names_the_line():
    def branch(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(CompressError, match=r"test_quantize_sequence\.py:\d+"):
        trace(Do(branch), SHAPE)


def test_a_network_that_chooses_between_branches_is_refused():
    def choose(x):
        return torch.cond(x.sum() > 0, lambda value: value + 1, lambda value: value - 1, (x,))

    with pytest.raises(CompressError, match="chooses while it runs which calls to make"):
        trace(Do(choose), SHAPE)
