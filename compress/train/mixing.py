"""Two training images in one, and a target to match: torchvision's mixup and cutmix, by probability."""

import torch
from torch import Tensor

from compress.data.chance import drawing_from
from compress.train.loop import Mix


def mixing(classes: int, mixup: float, cutmix: float, probability: float) -> Mix:
    """Mix a batch with `probability`, by mixup or cutmix; where both have a strength, each is taken half the time.

    mixup: l x_i + (1 - l) x_j, and the same of the targets; cutmix: a rectangle of 1 - l of the image from x_j;
    l is drawn from Beta(strength, strength) for each batch, and j is the neighbour of i. A strength of 0 is none.
    (https://arxiv.org/abs/1710.09412; https://arxiv.org/abs/1905.04899.)
    """
    from torchvision.transforms import v2  # slow to import, and most runs mix nothing

    strengths = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
    ways = [way(alpha=strength, num_classes=classes) for way, strength in strengths if strength]

    def mix(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if float(torch.rand((), generator=generator)) >= probability:
            return images, labels
        way = ways[int(torch.randint(len(ways), (), generator=generator))]
        with drawing_from(generator):
            mixed: tuple[Tensor, Tensor] = way(images, labels)
        return mixed

    return mix
