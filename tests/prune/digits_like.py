"""A small network and images that look like digits, without reading any: what zeroing and measuring are tried on."""

import dataclasses
import functools

import numpy as np
import torch

from compress import networks
from compress.architecture import Architecture
from compress.checkpoint import Checkpoint
from compress.data.arrays import GREY, ArraySplit, Part
from compress.data.spec import DatasetSpec
from compress.data.splits import LearningData
from compress.pipeline import Resources

SPEC = DatasetSpec("digits-like", tuple("0123456789"), (1, 32, 32), GREY, "sha256:0")


def data(train=160, validation=40):
    """Each class has a bright bar of its own on noise."""
    chance = np.random.default_rng(0)
    labels = np.arange(train + validation) % 10
    images = chance.integers(0, 90, (len(labels), 32, 32, 1))
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 4] += 150
    part = Part(images.astype(np.uint8), labels)
    learning = ArraySplit(part, np.arange(train))
    return LearningData(SPEC, learning, ArraySplit(part, np.arange(train, len(labels))), learning)


@functools.cache
def resources():
    return Resources(data=data())


@functools.cache
def base(seed=0):
    """The digits CNN with random weights and batch norms that are not all alike, in a checkpoint."""
    architecture = Architecture("compress", "digits_cnn", {"num_classes": 10}, (1, 32, 32))
    network = networks.create(architecture, seed=seed)
    chance = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for parameter, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_var, 0.5)):
                parameter.data.uniform_(low, low + 1, generator=chance)
    return Checkpoint(architecture, network.state_dict(), SPEC, "train")


def seen(checkpoint):
    """The same checkpoint, now of weights that have seen the validation images."""
    return dataclasses.replace(checkpoint, trained_on="all")
