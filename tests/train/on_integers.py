"""Small networks, prepared for training on integers, trained, and converted; each made once."""

import dataclasses
from functools import cache

import torch
from tiny_training import USER, checkpoint, task
from torch import nn

from compress.build import build
from compress.data.normalise import normalise
from compress.networks import UserNetwork
from compress.pipeline import Resources
from compress.quantize.qat_step import ConvertQAT, PrepareQAT
from compress.train.step import Train

TRAIN = Train(epochs=4, batch=16, rate=0.01, distillation=0.5)


class Mobile(nn.Module):
    """MobileNetV2 in small: expanded, depthwise, projected, added; batch norms with settings of their own."""

    def __init__(self):
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, eps=1e-3, momentum=0.01)
        self.expand, self.two = nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16, eps=1e-3)
        self.depth, self.three = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.project, self.four = nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.9), nn.Linear(8, 3)

    def forward(self, x):
        x = nn.functional.relu6(self.one(self.stem(x)))
        y = nn.functional.relu6(self.two(self.expand(x)))
        y = nn.functional.relu6(self.three(self.depth(y)))
        return self.head(self.drop((x + self.four(self.project(y))).mean((2, 3))))


class Groups(nn.Module):
    """Group norms, and not one batch norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.norm(self.stem(x)).relu().mean((2, 3)))


class Flat(nn.Module):
    """A linear layer that reads every place of every channel, as those of VGG and AlexNet."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Linear(72, 3)

    def forward(self, x):
        return self.head(self.norm(self.stem(x)).relu().flatten(1))


@cache
def trained_before(network=Mobile):
    """A network whose weights and statistics are not the first ones, and what it is trained with."""
    data = task(96)
    start = checkpoint(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = network()
        images = normalise(next(data.train.batches(96))[0], data.spec.preprocessing)
        with torch.no_grad():
            for _ in range(20):
                made.train()(images)
    user = UserNetwork(network, USER.name, USER.digest)
    start = dataclasses.replace(start, weights=made.state_dict())
    return start, Resources(data, user=user, teacher=start)


def logits(found, given):
    """What the network of a checkpoint answers to images."""
    with torch.no_grad():
        return build(found, given.user)(images(given))


def images(given):
    return normalise(next(given.data.validation.batches(15))[0], given.data.spec.preprocessing)


@cache
def trained(target, step_sizes):
    """The same network, prepared and trained; and its resources."""
    start, given = prepared(target=target, step_sizes=step_sizes)
    return TRAIN(start, given), given


@cache
def prepared(**settings):
    """The same network, prepared and not trained."""
    start, given = trained_before()
    return PrepareQAT(images=32, **settings)(start, given), given


@cache
def converted(*way):
    """The same network, prepared, trained, and converted."""
    before, given = trained(*way)
    return ConvertQAT()(before, given)
