"""MobileNetV2 of Sandler et al., https://arxiv.org/abs/1801.04381, for small images.

torchvision's network, which halves the image in the stem and in four of the seven stages; here the stem and the
second stage do not, so that an image of 32x32 ends as 4x4, as is usual for CIFAR.
"""

from torch import nn
from torchvision.models import MobileNetV2

STAGES = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
"""Of each stage: by how much its blocks widen inside, channels, blocks, and the stride of the first."""


def mobilenetv2(channels: int, num_classes: int) -> nn.Module:
    """2.2 M parameters, 88 M multiply-accumulates for a 32x32 image."""
    return _mobilenetv2(channels, num_classes, 1.0)


def mobilenetv2_half(channels: int, num_classes: int) -> nn.Module:
    """The same at half the width: 0.7 M parameters, 28 M multiply-accumulates for a 32x32 image."""
    return _mobilenetv2(channels, num_classes, 0.5)


def _mobilenetv2(channels: int, num_classes: int, width: float) -> nn.Module:
    network: nn.Module = MobileNetV2(num_classes, width, inverted_residual_setting=[list(stage) for stage in STAGES])
    first = network.get_submodule("features.0.0")
    assert isinstance(first, nn.Conv2d)
    stem = nn.Conv2d(channels, first.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    network.set_submodule("features.0.0", stem)
    return network
