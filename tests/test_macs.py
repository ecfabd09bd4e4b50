"""Multiply-accumulates and parameters, against what others publish."""

import pytest
import torch
import torchvision
from torch import nn

from compress.macs import layer_macs, macs, parameters


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 224), ("mobilenet_v2", 224), ("regnet_y_400mf", 224), ("vit_b_32", 224)]
)
def test_the_counts_are_those_torchvision_publishes(name, size):
    network = torchvision.models.get_model(name, weights=None).eval()
    published = torchvision.models.get_model_weights(name).DEFAULT.meta
    found = macs(network, (3, size, size))
    assert found / 1e9 == pytest.approx(published["_ops"], rel=0.005)
    assert parameters(network) == published["num_params"]


def test_a_layers_count_is_its_arithmetic():
    """A convolution: outputs x positions x kernel x inputs of its group. A linear layer: outputs x inputs."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    ).eval()
    assert layer_macs(network, (3, 8, 8)) == {"0": 8 * 16 * 27, "3": 8 * 16 * 9, "5": 1280}
    assert macs(network, (3, 8, 8)) == 8 * 16 * 27 + 8 * 16 * 9 + 1280


class Product(nn.Module):
    """Multiplies matrices in its own forward, beside a child in a list that is never called itself."""

    def __init__(self):
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(4, 5), nn.Linear(5, 6)])
        self.matrix = nn.Parameter(torch.zeros(6, 7))

    def forward(self, images):
        x = images.flatten(1)
        for linear in self.linears:
            x = linear(x)
        return x @ self.matrix


def test_a_product_outside_any_layer_is_counted_where_it_is_made():
    assert layer_macs(nn.Sequential(Product()), (1, 2, 2)) == {"0.linears.0": 20, "0.linears.1": 30, "0": 42}
    assert layer_macs(Product(), (1, 2, 2)) == {"linears.0": 20, "linears.1": 30, "": 42}


def test_a_shared_tensor_is_learnt_once():
    one, other = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
    other.weight = one.weight
    assert parameters(nn.ModuleList([one, other])) == 12


def test_counting_leaves_the_network_and_torch_as_they_were():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fast = torch.backends.mha.get_fastpath_enabled()
    macs(network, (1, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast
