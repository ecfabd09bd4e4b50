"""A small network for handwritten digits: large enough for pruning and INT8 to win something, trained in seconds.

Every width is a multiple of 16, the number of channels integer kernels work on at once.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same shape."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class DigitsCnn(nn.Module):
    """Stem, then twice: halve the image, double the width, one residual block; global average pooling, linear."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.block2 = Residual(32)
        self.conv3 = nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.block3 = Residual(64)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, channels, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.block2(F.relu(self.bn2(self.conv2(x))))
        x = self.block3(F.relu(self.bn3(self.conv3(x))))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def digits_cnn(channels: int, num_classes: int) -> nn.Module:
    """0.12 M parameters, 13 M multiply-accumulates for a 32x32 image."""
    return DigitsCnn(channels, num_classes)
