"""Weight decay where it belongs."""

import pytest
import torch
from torch import nn

from compress.train.optimisers import OPTIMISERS, optimiser


@pytest.mark.parametrize("name", OPTIMISERS)
def test_weight_decay_leaves_biases_and_norm_parameters_alone(name):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    nn.init.ones_(network[0].bias)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimiser_ = optimiser(name, network, rate=0.1, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser_.step()
    after = network.state_dict()
    # the first step of Nesterov momentum takes the pull 1 + 0.9 times
    pull = 0.1 * 0.5 * (1.9 if name == "sgd" else 1)
    assert torch.allclose(after["0.weight"], before["0.weight"] * (1 - pull))
    assert all(torch.equal(after[key], before[key]) for key in ("0.bias", "1.weight", "1.bias"))


def test_frozen_parameters_are_left_out():
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    assert [len(group["params"]) for group in optimiser("sgd", network, 0.1, 0.0).param_groups] == [1]
