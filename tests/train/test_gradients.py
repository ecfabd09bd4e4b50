"""What is done to gradients, by hand."""

import pytest
import torch
from torch import nn

from compress.train.gradients import clip_adaptive, clip_norm, clip_value


def network(weight, grad):
    made = nn.Linear(2, 2, bias=False)
    made.weight.data = torch.tensor(weight)
    made.weight.grad = torch.tensor(grad)
    return made


def test_the_norm_is_of_all_gradients_together():
    made = network([[1.0, 1.0], [1.0, 1.0]], [[3.0, 0.0], [0.0, 4.0]])
    clip_norm(made, 1.0)
    assert torch.allclose(made.weight.grad, torch.tensor([[0.6, 0.0], [0.0, 0.8]]), atol=1e-5)
    clip_norm(made, 2.0)
    assert float(made.weight.grad.norm()) == pytest.approx(1.0, abs=1e-5)


def test_values_are_cut_one_by_one():
    made = network([[1.0, 1.0], [1.0, 1.0]], [[3.0, -0.1], [0.2, -4.0]])
    clip_value(made, 0.5)
    assert made.weight.grad.flatten().tolist() == pytest.approx([0.5, -0.1, 0.2, -0.5])


def test_adaptive_clipping_compares_each_unit_with_its_own_weights():
    # weights of length 5 and 0, the second taken as 0.001: a fifth is 1 and 0.0002
    made = network([[3.0, 4.0], [0.0, 0.0]], [[0.0, 2.0], [0.3, 0.4]])
    clip_adaptive(made, 0.2)
    assert torch.allclose(made.weight.grad, torch.tensor([[0.0, 1.0], [0.00012, 0.00016]]), rtol=1e-5)
    short = network([[3.0, 4.0], [3.0, 4.0]], [[0.0, 0.9], [0.3, 0.4]])
    clip_adaptive(short, 0.2)
    assert torch.allclose(short.weight.grad, torch.tensor([[0.0, 0.9], [0.3, 0.4]]))


def test_adaptive_clipping_spares_the_layer_named_and_takes_a_bias_as_one_unit():
    made = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    for parameter in made.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.full_like(parameter, 10.0)
    clip_adaptive(made, 0.1, spared="1")
    assert made[1].weight.grad.flatten().tolist() == [10, 10]
    assert made[0].bias.grad.tolist() == pytest.approx([0.1, 0.1])
