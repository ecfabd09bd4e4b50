"""What is done to training images at random, a batch of bytes at a time: each piece by name, and whole presets.

Every function takes and gives (N, C, H, W) uint8, draws for each image on its own, and takes its randomness
from an explicit generator on the CPU.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from compress.data.augment_affine import affine
from compress.data.augment_colour import Policy, follow_policy, hue, recolour
from compress.data.spec import DatasetSpec
from compress.errors import UsageError, unknown

Augmentation = Callable[[Tensor, Generator], Tensor]


def crop(images: Tensor, generator: Generator, padding: int, border: Literal["zero", "reflect"] = "zero") -> Tensor:
    """Shift each image by up to `padding` pixels both ways: pad all sides, then cut the old size out at random.

    What comes in from outside is black, or the image mirrored at its edge without repeating it.
    """
    count, channels, height, width = images.shape
    if border == "reflect":
        padded = images[:, :, _reflected(height, padding)][:, :, :, _reflected(width, padding)]
    else:
        padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    picked = torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None]
    return padded[*picked, rows[:, None, :, None], columns[:, None, None, :]]


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror every second image left to right, by chance."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


def erase(images: Tensor, generator: Generator, probability: float, fill: Sequence[int]) -> Tensor:
    """Cover a rectangle of each image, with `probability`, by the colour `fill` of one byte a channel.

    It takes 2 to 33 % of the image, its sides in a ratio of 0.3 to 3.3, and may lie partly outside.
    (Random erasing, https://arxiv.org/abs/1708.04896; close to cutout, https://arxiv.org/abs/1708.04552.)
    """
    count, _, height, width = images.shape
    chosen, area, ratio, top, left = torch.rand(5, count, 1, generator=generator)
    share, sides = 0.02 + 0.31 * area, 0.3 * 11**ratio
    tall, wide = (share * sides).sqrt() * height, (share / sides).sqrt() * width
    rows = _between(height, top * height - tall / 2, tall)
    columns = _between(width, left * width - wide / 2, wide)
    covered = ((chosen < probability) & rows)[:, None, :, None] & columns[:, None, None, :]
    colour = torch.tensor(fill, dtype=torch.uint8, device=images.device)[:, None, None]
    return torch.where(covered.to(images.device), colour, images)


@dataclass(frozen=True)
class Amounts:
    """How much is done to a training image at random; with all at zero it stays as it is.

    `padding` is in pixels, `rotation` and `shear` in degrees, `translation` a share of the image, `scaling`,
    `brightness`, `contrast` and `saturation` the most a factor leaves 1 by, `hue` a share of the colour circle,
    `erasing` a probability.
    """

    padding: int = 0
    flip: bool = False
    rotation: float = 0.0
    translation: float = 0.0
    shear: float = 0.0
    scaling: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    policy: Policy = "none"
    erasing: float = 0.0


LIGHT = Amounts(padding=4, flip=True)
MEDIUM = dataclasses.replace(LIGHT, rotation=5, scaling=0.1, brightness=0.2, contrast=0.2, saturation=0.2, erasing=0.25)
PRESETS = {
    "none": Amounts(),
    "light": LIGHT,
    "medium": MEDIUM,
    "heavy": dataclasses.replace(MEDIUM, rotation=10, shear=5, hue=0.05, policy="randaugment", erasing=0.5),
}


def augmentation(name: str, spec: DatasetSpec, **changes: Any) -> Augmentation:
    """The augmentation of a name in `PRESETS`, for images like those of `spec`, with other `Amounts` where given.

    Grey images are shifted by up to 2 pixels and not mirrored (a mirrored 3 is no 3), and have no colours to
    change. Raises UsageError where that is asked for all the same.
    """
    if name not in PRESETS:
        raise unknown("augmentation", name, PRESETS)
    amounts = PRESETS[name]
    if spec.preprocessing.colour == "grey":
        amounts = dataclasses.replace(amounts, padding=min(amounts.padding, 2), flip=False, saturation=0.0, hue=0.0)
        wrong = [each for each in ("saturation", "hue") if changes.get(each)]
        if wrong:
            raise UsageError(
                f"{' and '.join(wrong)} cannot be changed: the images of {spec.name} are grey. Leave it out."
            )
    changed = dataclasses.replace(amounts, **changes)
    if changed.padding >= min(spec.image_shape[1:]):
        raise UsageError(
            f"a shift of up to {changed.padding} pixels was asked for, and the images of {spec.name} are "
            f"{spec.image_shape[1]}x{spec.image_shape[2]}. Give fewer than that."
        )
    pieces = _pieces(changed, spec)

    def augment(images: Tensor, generator: Generator) -> Tensor:
        for piece in pieces:
            images = piece(images, generator)
        return images

    return augment


def _pieces(amounts: Amounts, spec: DatasetSpec) -> list[Augmentation]:
    """What `amounts` asks for, in order: places, then colours, then what is covered."""
    pieces: list[Augmentation] = []
    if amounts.padding:
        pieces.append(lambda images, generator: crop(images, generator, amounts.padding))
    if amounts.flip:
        pieces.append(flip)
    places = (amounts.rotation, amounts.translation, amounts.shear, amounts.scaling)
    if any(places):
        pieces.append(lambda images, generator: affine(images, generator, *places))
    colours = (amounts.brightness, amounts.contrast, amounts.saturation)
    if any(colours):
        pieces.append(lambda images, generator: recolour(images, generator, *colours))
    if amounts.hue:
        pieces.append(lambda images, generator: hue(images, generator, amounts.hue))
    if amounts.policy != "none":
        pieces.append(lambda images, generator: follow_policy(images, generator, amounts.policy))
    if amounts.erasing:
        fill = [round(255 * mean) for mean in spec.preprocessing.mean]  # what normalising turns into zero
        pieces.append(lambda images, generator: erase(images, generator, amounts.erasing, fill))
    return pieces


def _between(extent: int, start: Tensor, length: Tensor) -> Tensor:
    """Which of the pixels 0 ... extent - 1 have their middle in each stretch (N, 1): (N, extent)."""
    middle = torch.arange(extent) + 0.5
    return (middle >= start) & (middle < start + length)


def _reflected(extent: int, padding: int) -> Tensor:
    """Positions that extend 0 ... extent - 1 by `padding` on both sides, mirrored at the ends; padding < extent."""
    index = torch.arange(-padding, extent + padding).abs()
    return (extent - 1) - ((extent - 1) - index).abs()
