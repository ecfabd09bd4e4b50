"""torch's optimisers, given what they are asked for."""

import pytest
import torch
from torch import nn

from compress.train.optimisers import OPTIMISERS, optimiser


@pytest.mark.parametrize("name", OPTIMISERS)
def test_weight_decay_leaves_biases_and_norm_parameters_alone(name):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    nn.init.constant_(network[0].weight, 0.5)
    nn.init.ones_(network[0].bias)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    chosen = optimiser(name, network, rate=0.1, weight_decay=0.2)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    chosen.step()
    # The pull 0.2 * 0.5 is the gradient: sgd takes it 1 + 0.9 times, adam and rmsprop divide it by its size
    # (rmsprop by the root of a hundredth of its square); adamw takes it from the weight itself.
    moved = {"sgd": 0.1 * 0.1 * 1.9, "adam": 0.1, "rmsprop": 0.1 * 10, "adamw": 0.1 * 0.1}[name]
    assert torch.allclose(network[0].weight, torch.tensor(0.5 - moved), rtol=1e-5)
    after = network.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in ("0.bias", "1.weight", "1.bias"))


def test_frozen_parameters_are_left_out():
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    assert [len(group["params"]) for group in optimiser("sgd", network, 0.1, 0.0).param_groups] == [1]


@pytest.mark.parametrize(
    ("momentum", "nesterov", "expected"), [(0.0, True, 1 + 1), (0.5, False, 1 + 1.5), (0.5, True, 1.5 + 1.75)]
)
def test_momentum_worked_by_hand(momentum, nesterov, expected):
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    chosen = optimiser("sgd", network, 1.0, 0.0, momentum, nesterov)
    for _ in range(2):
        network.weight.grad = torch.ones(1, 1)
        chosen.step()
    assert network.weight.item() == pytest.approx(-expected)


def test_the_first_layer_learns_at_its_share_of_the_last_ones_rate_and_those_between_in_proportion():
    network = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.Linear(1, 1))
    groups = optimiser("sgd", network, 0.8, 0.1, depth_rate=0.25).param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    layers = network[0], network[1][0], network[2]
    assert [rates[id(layer.weight)] for layer in layers] == pytest.approx([0.2, 0.4, 0.8])
    assert [rates[id(layer.bias)] for layer in layers] == pytest.approx([0.2, 0.4, 0.8])
    assert groups[0]["lr"] == 0.8
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0] * 3


def test_a_parameter_that_two_layers_share_is_given_once():
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    network[1].weight = network[0].weight
    groups = optimiser("sgd", network, 0.8, 0.1, depth_rate=0.5).param_groups
    assert sum(len(group["params"]) for group in groups) == 3
