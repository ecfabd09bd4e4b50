"""What weights are held to."""

import pytest
import torch
from torch import nn

from compress.train.constraints import keep_zeros, max_norm


def test_a_unit_longer_than_allowed_is_scaled_back_and_others_are_left():
    made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.PReLU())
    made[0].weight.data = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    nn.init.constant_(made[0].bias, 9.0)
    max_norm(1.0)(made, 1)
    assert torch.allclose(made[0].weight, torch.tensor([[0.6, 0.8], [0.3, 0.4]]), atol=1e-5)
    assert made[0].bias.tolist() == [9, 9] and made[1].weight.tolist() == [1, 1]


def test_units_of_a_transposed_convolution_are_its_outputs():
    made = nn.ConvTranspose2d(1, 2, 1)
    made.weight.data = torch.tensor([4.0, 0.5]).reshape(1, 2, 1, 1)
    max_norm(1.0)(made, 1)
    assert made.weight.flatten().tolist() == pytest.approx([1.0, 0.5], abs=1e-5)


def test_zeros_are_put_back_in_the_layers_named_only():
    made = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2))
    made[0].weight.data = torch.tensor([[0.0, 2.0, 0.0]])
    made[1].weight.data.zero_()
    after = keep_zeros(made, ["0"])
    for layer in made:
        layer.weight.data -= 1.0
    after(made, 1)
    assert made[0].weight.tolist() == [[0.0, 1.0, 0.0]]
    assert made[1].weight.flatten().tolist() == [-1, -1]
