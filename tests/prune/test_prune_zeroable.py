import pytest
import torch
from digits_like import resources
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from compress.errors import UsageError
from compress.prune.zeroable import input_axis, layers_to_zero, score_weights, squared_gradients


class Odd(nn.Module):
    """A layer of every kind that matters to zeroing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 16, 3, groups=2)
        self.up = nn.ConvTranspose2d(16, 8, 2, groups=4)
        self.computed = weight_norm(nn.Conv2d(8, 8, 1))
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.head = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 5))
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.head[0].weight


def left(**options):
    return {refusal.layer: refusal.reason for refusal in layers_to_zero(Odd(), **options)[1]}


def test_every_convolution_and_linear_layer_gives_weights_once_and_the_others_say_why_not():
    layers, _ = layers_to_zero(Odd())
    assert layers == ("stem", "depthwise", "grouped", "up", "head.0", "head.1")
    assert left() == {
        "the network itself": "scale: not the weights of a convolution or linear layer",
        "computed": "its weights are computed from others",
        "computed.parametrizations.weight": "original0, original1: not the weights of a convolution or linear layer",
    }


def test_fours_need_input_channels_in_fours_and_the_others_are_refused_by_name():
    layers, _ = layers_to_zero(Odd(), fours=True)
    assert layers == ("grouped", "up", "head.0", "head.1")
    assert left(fours=True)["stem"] == "its input channels (3) are not a multiple of four"
    assert left(fours=True)["depthwise"] == "its input channels (1 in each group) are not a multiple of four"


def test_the_input_axis_is_the_second_and_of_a_transposed_convolution_the_first():
    assert [input_axis(Odd(), layer) for layer in ("grouped", "up", "head.0")] == [1, 0, 1]


def test_what_is_excluded_stays_with_all_that_is_in_it():
    assert layers_to_zero(Odd(), ("head", "stem"))[0] == ("depthwise", "grouped", "up")
    assert left(exclude=("head",))["head.1"] == "it was excluded"
    assert left(exclude=("head",))["tied"] == "it shares its weights with head.0, whose stay"
    with pytest.raises(UsageError, match=r"unknown layer 'heed': did you mean head"):
        layers_to_zero(Odd(), ("heed",))


def test_squared_gradients_are_those_worked_by_hand_and_leave_the_network_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(2, 2, bias=False)).train()
    nn.init.zeros_(network[2].weight)
    images, labels = torch.tensor([[[[2.0, 4.0]]], [[[0.0, 8.0]]]]), torch.tensor([0, 1])
    # All logits are 0, so p = 1/2 and the gradient of an image's loss is (1/2 - target) x: -1, -2 for label 0.
    each = squared_gradients(network, ["2"], [(images[:1], labels[:1]), (images[1:], labels[1:])])["2"]
    both = squared_gradients(network, ["2"], [(images, labels)])["2"]
    assert torch.equal(each, torch.tensor([[0.5, 10.0], [0.5, 10.0]]))
    assert torch.equal(both, torch.tensor([[0.25, 1.0], [0.25, 1.0]]))
    assert network.training
    assert network[2].weight.grad is None


def test_an_unknown_criterion_lists_what_there_is():
    with pytest.raises(UsageError, match=r"unknown criterion 'l2'.*lamp, magnitude, taylor"):
        score_weights(Odd(), ("stem",), "l2", resources(), 8)
