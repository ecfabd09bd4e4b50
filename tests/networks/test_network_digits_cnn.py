import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress import networks
from compress.architecture import Architecture


def create():
    return networks.create(Architecture("compress", "digits_cnn", {"num_classes": 10}, (1, 32, 32)))


def test_it_has_the_size_it_says():
    network = create()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 32, 32))
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 0.12
    assert round(counter.get_total_flops() / 2e6) == 13


def test_every_width_is_a_multiple_of_sixteen():
    widths = [module.out_channels for module in create().modules() if isinstance(module, nn.Conv2d)]
    assert len(widths) == 7
    assert all(width % 16 == 0 for width in widths)
