"""Chains of convolutions whose weights are hard to round, and settings to quantize them with."""

from types import MappingProxyType

import torch
from quantizable import SHAPE
from torch import nn
from torch.nn import functional

from compress.quantize.draft import Setting, draft
from compress.quantize.target import scheme, target


def smooth(count=64, seed=1):
    """Images whose neighbouring pixels are alike, as those of photographs are."""
    noise = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(noise, SHAPE[1:], mode="bilinear")


def chain(activation=nn.ReLU, groups=16):
    """Three convolutions in a row, the one in the middle depthwise; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            activation(),
            nn.Conv2d(16, 16, 3, padding=1, groups=groups),
            activation(),
            nn.Conv2d(16, 8, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        ).eval()


def hard(exponent=6):
    """The same function, its channels rescaled in turn by powers of two up to 2^exponent, exactly."""
    made = chain()
    with torch.no_grad():
        for first, second, axis in ((0, 2, 0), (2, 4, 1)):
            factor = 2.0 ** torch.linspace(-exponent, exponent, 16).round().roll(first)
            made[first].weight *= factor.reshape(-1, 1, 1, 1)
            made[first].bias *= factor
            made[second].weight /= factor.reshape(-1, 1, 1, 1) if axis == 0 else factor.reshape(1, -1, 1, 1)
    return made


def setting(name="torch", **bits):
    """How to quantize for a target."""
    return Setting(SHAPE, scheme(target(name), **bits), "min-max", 99.99, lambda: smooth().split(16))


def quantized(network, name="torch", **bits):
    """A draft of a network, nothing of it left in float."""
    return draft(setting(name, **bits), network, MappingProxyType({}))


def distance(made, network):
    """How far the logits of a draft are from those of a network, as a share of their length, on other images."""
    given = smooth(seed=7)
    with torch.no_grad():
        exact = network(given)
        return float((made.quantized(given) - exact).norm() / exact.norm())
