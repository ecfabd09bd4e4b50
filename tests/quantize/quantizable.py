"""Small networks with everything that makes quantizing hard, and one of each quantized for a target."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.nn import functional

from compress.quantize.graph import insert
from compress.quantize.ptq import Quantized, quantize
from compress.quantize.target import target

SHAPE = (3, 16, 16)


class Residual(nn.Module):
    """A shortcut of slices and zero padding, one ReLU module for all, a mean, no batch norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.first, self.second = nn.Conv2d(8, 16, 3, 2, padding=1), nn.Conv2d(16, 16, 3, padding="same")
        self.linear = nn.Linear(16, 5)

    def forward(self, x):
        x = self.relu(self.stem(x))
        y = self.second(self.relu(self.first(x)))
        x = self.relu(y + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.linear(x.mean((2, 3)))


class Shared(nn.Module):
    """One convolution called on two scales, each time followed by a batch norm of its own, which cannot be folded."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 5)
        self.one, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.one(self.conv(x)).relu()
        return self.linear((self.other(self.conv(8 * y)) + y).mean((-1, -2)))


class Mobile(nn.Module):
    """Depthwise, ReLU6 in place, squeeze and excite with SiLU and hardswish, dropout."""

    def __init__(self):
        super().__init__()
        self.expand, self.depth, self.project = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 8, 1),
        )
        self.squeeze, self.excite, self.drop, self.linear = (
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(4, 8, 1),
            nn.Dropout(0.9),
            nn.Linear(8, 5),
        )

    def forward(self, x):
        x = functional.hardswish(self.expand(x), inplace=True)
        y = functional.relu6(self.depth(x), inplace=True)
        y = y * torch.sigmoid(self.excite(functional.silu(self.squeeze(functional.adaptive_avg_pool2d(y, 1)))))
        y = x + self.project(y)
        return self.linear(self.drop(functional.adaptive_avg_pool2d(y, 1).flatten(1)))


class Joined(nn.Module):
    """Concatenation of values of both signs with values of one, pools, and channels shuffled and split."""

    def __init__(self):
        super().__init__()
        self.stem, self.grow, self.norm = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.BatchNorm2d(8),
        )
        self.part, self.linear = nn.Conv2d(4, 4, 1), nn.Linear(8 * 16, 5)

    def forward(self, x):
        x = functional.max_pool2d(self.stem(x).relu(), 2)
        x = self.norm(torch.cat([x, self.grow(x)], 1)).relu()
        left, right = functional.avg_pool2d(x, 2).chunk(2, 1)
        x = torch.cat([left, self.part(right)], 1).view(-1, 2, 4, 4, 4).transpose(1, 2).contiguous()
        return self.linear(x.view(x.shape[0], -1))


class Words(nn.Module):
    """A linear layer on (N, places, features), whose bias ONNX adds in an operator of its own."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm, self.mix, self.head = (
            nn.Conv2d(3, 8, 4, 4),
            nn.LayerNorm(8),
            nn.Linear(8, 8),
            nn.Linear(8, 5),
        )

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head((x + functional.gelu(self.mix(self.norm(x)))).mean(1))


CASES = [(name, "onnxruntime-cpu") for name in ("residual", "shared", "mobile", "joined", "words")]
CASES += [("residual", "openvino"), ("residual", "tensorrt"), ("joined", "tensorrt")]
"""Networks and targets that between them go through every rule."""
NETWORKS = {"residual": Residual, "shared": Shared, "mobile": Mobile, "joined": Joined, "words": Words}


def network(name):
    """One of the small networks in inference mode, with weights and statistics of its own; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = NETWORKS[name]()
        with torch.no_grad():
            made.train()(torch.randn(32, *SHAPE))
        return made.eval()


def images(count=16, seed=1):
    """Normalised images of noise."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Case:
    """A network, what quantizing it gave, and the network rebuilt from that."""

    network: nn.Module
    result: Quantized
    rebuilt: nn.Module

    @property
    def edges(self):
        """Where the integers are."""
        return self.result.quantization.edges


@cache
def case(name, wanted="onnxruntime-cpu"):
    """A small network, quantized for a target and rebuilt."""
    made = network(name)
    result = quantize(made, SHAPE, target(wanted), "min-max", images().split(8))
    return Case(made, result, insert(made, result.quantization, result.tensors, SHAPE))
