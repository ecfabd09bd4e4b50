"""The ResNets for CIFAR of He et al., https://arxiv.org/abs/1512.03385, section 4.2.

A 3x3 stem, three stages of 16, 32 and 64 channels with n blocks each (depth 6n + 2), global average pooling.
Shortcuts are option A: where a stage halves the image, every second pixel, zeros for the new channels.
Tensor names are those of github.com/akamaster/pytorch_resnet_cifar10, whose trained weights load as they are.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.added:
            x = F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    """A ResNet of depth 6 * blocks + 2 for small images."""

    def __init__(self, blocks: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(blocks, 16, 16, stride=1)
        self.layer2 = _stage(blocks, 16, 32, stride=2)
        self.layer3 = _stage(blocks, 32, 64, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, channels, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet20(channels: int, num_classes: int) -> nn.Module:
    """0.27 M parameters, 41 M multiply-accumulates for a 32x32 image."""
    return CifarResNet(3, channels, num_classes)


def resnet32(channels: int, num_classes: int) -> nn.Module:
    """0.46 M parameters, 69 M multiply-accumulates for a 32x32 image."""
    return CifarResNet(5, channels, num_classes)


def resnet44(channels: int, num_classes: int) -> nn.Module:
    """0.66 M parameters, 97 M multiply-accumulates for a 32x32 image."""
    return CifarResNet(7, channels, num_classes)


def resnet56(channels: int, num_classes: int) -> nn.Module:
    """0.85 M parameters, 126 M multiply-accumulates for a 32x32 image."""
    return CifarResNet(9, channels, num_classes)


def resnet110(channels: int, num_classes: int) -> nn.Module:
    """1.73 M parameters, 253 M multiply-accumulates for a 32x32 image."""
    return CifarResNet(18, channels, num_classes)
