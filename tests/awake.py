"""Checkpoints of untrained networks whose outputs vary all the same."""

import torch
from torch import nn

from compress import networks
from compress.architecture import Architecture
from compress.checkpoint import Checkpoint

ARCHITECTURES = {
    "digits_cnn": Architecture("compress", "digits_cnn", {"num_classes": 10}, (1, 32, 32)),
    "resnet20": Architecture("compress", "resnet20", {"num_classes": 10}, (3, 32, 32)),
    "resnet18": Architecture("torchvision", "resnet18", {"num_classes": 10}, (3, 64, 64)),
    "mobilenet_v2": Architecture("torchvision", "mobilenet_v2", {"num_classes": 10}, (3, 64, 64)),
}


def awake(architecture, dataset=None, user=None, shown=None):
    """Random weights behind batch norms that know their inputs (`shown`), and a classifier that prefers no class."""
    network = networks.create(architecture, user)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    shown = images(architecture.input_shape, 32, seed=1) if shown is None else shown
    with torch.no_grad():
        network.train()(shown)
        logits = network.eval()(shown)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.weight /= logits.std()
                module.bias.copy_((module.bias - logits.mean(0)) / logits.std())
    return Checkpoint(architecture, network.state_dict(), dataset)


def images(input_shape, count, seed=0):
    """Blotches of noise, as normalised images."""
    channels, height, width = input_shape
    blotches = torch.randn(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(blotches, (height, width), mode="bilinear")
