"""A network's own random layers, set and switched off."""

import pytest
import torch
from tiny_training import Everything
from torch import nn
from torchvision import models

from compress.errors import CompressError
from compress.train.regularisers import KINDS, layers_of, regularise


@pytest.mark.parametrize(("kind", "count"), [("dropout", 1), ("spatial_dropout", 1), ("drop_block", 2)])
def test_every_layer_of_a_kind_is_set_and_no_weight_or_other_layer_is_touched(kind, count):
    network = Everything()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert regularise(network, kind, 0.3) == count
    for module in network.modules():
        if hasattr(module, "p"):
            assert module.p == (0.3 if isinstance(module, layers_of(kind)) else 0.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    images = torch.rand(2, 3, 8, 8)
    network.train()
    assert not torch.equal(network(images), network(images))


def test_stochastic_depth_grows_with_depth_as_in_its_paper():
    network = Everything()
    assert regularise(network, "stochastic_depth", 0.4) == 2
    assert [block.depth.p for block in network.blocks] == pytest.approx([0.2, 0.4])


def test_zero_switches_a_torchvision_networks_layers_off():
    network = models.mobilenet_v2(width_mult=0.1, dropout=0.5)
    regularise(network, "dropout", 0.0)
    network.train()
    features = torch.rand(4, network.last_channel)
    assert torch.equal(network.classifier(features), network.classifier(features))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_without_such_layers_is_refused(kind):
    with pytest.raises(
        CompressError, match=rf"{kind} 0.1 was asked for, and the network has no layer.*Leave `{kind}` out"
    ):
        regularise(nn.Linear(1, 1), kind, 0.1)
