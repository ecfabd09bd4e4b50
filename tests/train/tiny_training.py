"""A small task and a small network with every kind of layer, for tests that train."""

import numpy as np
import torch
from torch import nn
from torchvision.ops import DropBlock2d, StochasticDepth

from compress.architecture import Architecture
from compress.checkpoint import Checkpoint
from compress.data.arrays import COLOUR, GREY, ArraySplit, Part
from compress.data.spec import DatasetSpec
from compress.data.splits import LearningData
from compress.networks import UserNetwork, create
from compress.pipeline import Resources
from compress.train.step import Train

CLASSES = ("red", "green", "blue")


def task(count=86, channels=3, classes=CLASSES, seed=0):
    """8x8 images that are a little brighter in one channel, or at another height, for each class; LearningData."""
    chance = np.random.default_rng(seed)

    def part(count):
        labels = np.arange(count) % len(classes)
        images = chance.integers(0, 120, (count, 8, 8, channels))
        for image, label in zip(images, labels, strict=True):
            if channels == 3:
                image[:, :, label % 3] += 15
            else:
                image[2 * label : 2 * label + 2] += 60
        return ArraySplit(Part(images.astype(np.uint8), labels.astype(np.int64)), np.arange(count))

    spec = DatasetSpec(
        "tiny", tuple(classes), (channels, 8, 8), COLOUR if channels == 3 else GREY, f"sha256:{count}-{seed}"
    )
    train = part(count)
    return LearningData(spec, train, part(15), train)


class Block(nn.Module):
    """A residual branch with what can be random in one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.square = DropBlock2d(0.0, 3)
        self.depth = StochasticDepth(0.0, "row")

    def forward(self, x):
        return torch.relu(x + self.depth(self.square(self.bn(self.conv(x)))))


class Everything(nn.Module):
    """Two residual blocks, with dropout of every kind, none of it switched on."""

    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = norm(8)
        self.spatial = nn.Dropout2d(0.0)
        self.blocks = nn.Sequential(Block(), Block())
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.blocks(self.spatial(torch.relu(self.bn(self.stem(x)))))
        return self.head(self.dropout(x.mean((2, 3))))


USER = UserNetwork(Everything, "everything", "sha256:tiny")


def checkpoint(data, trained_on="train", **changes):
    """An untrained network for `data`: Everything for colours, ours for digits otherwise."""
    colours = data.spec.image_shape[0] == 3
    architecture = Architecture(
        "user" if colours else "compress",
        "everything" if colours else "digits_cnn",
        {} if colours else {"num_classes": len(data.spec.classes)},
        data.spec.image_shape,
        code=USER.digest if colours else None,
        **changes,
    )
    weights = {name: tensor.clone() for name, tensor in create(architecture, USER).state_dict().items()}
    return Checkpoint(architecture, weights, data.spec, trained_on)


def resources(data, **changes):
    return Resources(data, user=USER, **changes)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


DATA = task()
START = checkpoint(DATA)
TEACHER = checkpoint(task(seed=3))
QUIET = {"epochs": 2, "batch": 16, "augmentation": "none", "warmup": 0.0, "rate": 0.05}


def trained(start=START, data=DATA, **settings):
    """What a training of two epochs gives."""
    return Train(**{**QUIET, **settings})(start, resources(data, teacher=TEACHER))
