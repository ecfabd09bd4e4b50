"""Blocks that are computed twice."""

import pytest
import torch
from tiny_training import Everything
from torch import nn
from torchvision import models

from compress.errors import CompressError
from compress.networks.cifar_resnet import resnet56
from compress.train.checkpointing import checkpoint_blocks
from compress.train.regularisers import regularise


def stepped(checkpointing):
    """A network with dropout in its blocks after two steps."""
    torch.manual_seed(0)
    network = Everything()
    for kind in ("drop_block", "stochastic_depth"):
        regularise(network, kind, 0.3)
    if checkpointing:
        assert checkpoint_blocks(network) == 2
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    network.train()
    for _ in range(2):
        network(torch.rand(4, 3, 8, 8)).square().sum().backward()
        optimiser.step()
    return network


def test_weights_and_statistics_are_the_same_bit_for_bit():
    plain, twice = stepped(False).state_dict(), stepped(True).state_dict()
    assert plain.keys() == twice.keys()
    assert all(torch.equal(plain[name], twice[name]) for name in plain)


def kept_bytes(network, images):
    """Bytes that a forward pass keeps for its gradient, besides parameters and images."""
    own = {each.data_ptr() for each in (*network.parameters(), *network.buffers(), images)}
    kept = {}

    def note(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    network.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = network(images)
    assert logits.requires_grad
    return sum(kept.values())


def test_a_resnet_56_keeps_at_most_six_tenths_of_its_activations():
    torch.manual_seed(0)
    images, network = torch.rand(2, 3, 32, 32), resnet56(3, 10)
    before = kept_bytes(network, images)
    assert checkpoint_blocks(network) == 27
    assert kept_bytes(network, images) < 0.6 * before


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("mobilenet_v2", 17), ("efficientnet_b0", 16)])
def test_blocks_of_torchvision_networks_are_found(name, blocks):
    with torch.device("meta"):
        network = models.get_model(name)
    found = checkpoint_blocks(network)
    assert found >= blocks


def test_a_network_in_inference_mode_runs_once():
    network = stepped(True).eval()
    calls = []
    network.blocks[0].conv.register_forward_hook(lambda *told: calls.append(1))
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    assert len(calls) == 1


def test_a_network_without_blocks_is_refused():
    with pytest.raises(CompressError, match="the network has no blocks"):
        checkpoint_blocks(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))
