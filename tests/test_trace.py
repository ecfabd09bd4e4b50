"""Following what a network does."""

import pytest
import torch
from torch import nn

from compress.errors import CompressError
from compress.trace import module_of, trace


class Undecided(nn.Module):
    """Control flow that depends on the values of the image."""

    def forward(self, x):
        if x.sum() > 0:
            return x.mean((2, 3))
        return -x.mean((2, 3))


def test_a_network_is_followed_for_any_batch():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = trace(network, (3, 8, 8))
    for batch in (2, 5):
        images = torch.randn(batch, 3, 8, 8)
        assert torch.equal(graph(images), network(images))
    names = [module_of(node) for node in graph.graph.nodes]
    assert names.count("0") == 2


def test_control_flow_on_values_is_refused_with_the_line_and_nothing_else(capfd):
    with pytest.raises(CompressError, match=r"cannot follow this network at test_trace.py:\d+"):
        trace(Undecided(), (3, 8, 8))
    assert capfd.readouterr() == ("", "")


class Insistent(nn.Module):
    """Raises without a word."""

    def forward(self, x):
        raise AssertionError


def test_an_error_of_the_users_code_is_told_with_its_line_and_without_words_of_its_own():
    with pytest.raises(CompressError, match=r"cannot follow this network at test_trace.py:\d+: AssertionError\. Data"):
        trace(Insistent(), (3, 8, 8))


def test_a_network_that_does_not_take_the_images_is_refused():
    with pytest.raises(CompressError, match="cannot follow this network"):
        trace(nn.Sequential(nn.Conv2d(4, 4, 3)), (3, 8, 8))
