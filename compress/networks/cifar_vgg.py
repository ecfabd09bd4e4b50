"""VGG-16 of Simonyan and Zisserman, https://arxiv.org/abs/1409.1556, with batch norms, for small images.

Its thirteen 3x3 convolutions and five max-pools leave one pixel of a 32x32 image, so one linear layer is enough
after them; tensor names of the convolutions are torchvision's.
"""

import torch
from torch import Tensor, nn

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""The convolutions between one max-pool and the next."""


class CifarVgg(nn.Module):
    """Convolutions with batch norm and ReLU, a max-pool after each group of them, then the classifier."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for group in WIDTHS:
            for width in group:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, channels, H, W) of at least 32x32; larger ones are averaged at the end."""
        logits: Tensor = self.classifier(torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(x), 1), 1))
        return logits


def vgg16_bn(channels: int, num_classes: int) -> nn.Module:
    """14.7 M parameters, 313 M multiply-accumulates for a 32x32 image."""
    return CifarVgg(channels, num_classes)
