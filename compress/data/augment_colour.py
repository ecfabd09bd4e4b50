"""Training images with other colours: brightness, contrast, saturation and hue, and the learned policies."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from compress.data.chance import drawing_from

GROUP = 8
"""Images of a batch that share one draw where torchvision has one for a whole batch only (hue, policies)."""
GREY = (0.2989, 0.587, 0.114)
"""What red, green and blue weigh in grey, as in torchvision."""

Policy = Literal["none", "randaugment", "autoaugment"]


def recolour(images: Tensor, generator: Generator, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Change each image's brightness, contrast and saturation by factors drawn from 1 +- the amounts given."""
    factors = 1 + (2 * torch.rand(3, len(images), generator=generator) - 1) * torch.tensor(
        [[brightness], [contrast], [saturation]]
    )
    return blend(images, *factors.to(images.device))


def blend(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Factors (N,) of brightness, contrast and saturation, in this order: f x + (1 - f) y, cut to 0 ... 255.

    y is black, the image's mean grey, and its own grey; a factor of 1 changes nothing.
    """
    pixels = images.float()
    for name, factor in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        grey = _grey(pixels)
        other = {
            "brightness": torch.zeros_like(grey),
            "contrast": grey.mean((1, 2, 3), keepdim=True),
            "saturation": grey,
        }[name]
        pixels = torch.lerp(other.expand_as(pixels), pixels, factor[:, None, None, None]).clamp_(0, 255)
    return pixels.round_().to(torch.uint8)


def hue(images: Tensor, generator: Generator, amount: float) -> Tensor:
    """Turn the hue of each group of eight images by up to `amount` of the colour circle, at most 0.5."""
    from torchvision.transforms.v2 import functional

    return _grouped(
        images, lambda some: functional.adjust_hue(some, amount * float(2 * torch.rand((), generator=generator) - 1))
    )


def follow_policy(images: Tensor, generator: Generator, policy: Policy) -> Tensor:
    """torchvision's RandAugment (two operations of strength 9) or AutoAugment, drawn for each group of eight images.

    (https://arxiv.org/abs/1909.13719; https://arxiv.org/abs/1805.09501, its CIFAR-10 policy up to 64 pixels, else ImageNet's.)
    """
    from torchvision.transforms import v2

    learned = v2.AutoAugmentPolicy.CIFAR10 if max(images.shape[2:]) <= 64 else v2.AutoAugmentPolicy.IMAGENET
    transform = v2.RandAugment() if policy == "randaugment" else v2.AutoAugment(learned)
    with drawing_from(generator):
        return _grouped(images, transform)


def _grouped(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([change(some) for some in torch.split(images, GROUP)])


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    return (pixels * torch.tensor(GREY, device=pixels.device)[:, None, None]).sum(1, keepdim=True)
