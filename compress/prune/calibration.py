"""The images that statistics are measured on: some of the calibration split, a batch at a time."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from compress.data.augment import augmentation
from compress.data.normalise import normalise
from compress.pipeline import Resources

BATCH = 256
"""Images at a time; memory grows with it and with nothing else."""


def batches(resources: Resources, images: int, task: str, *, augmented: bool = False) -> Iterator[Tensor]:
    """The first `images` of the calibration split, normalised, on the device, in batches of nearly the same size.

    `augmented` shifts and flips them as `train` does by default: a trained ResNet-20 keeps its accuracy when its
    batch norms are measured on such images, and loses three points on plain ones. Raises UsageError where there
    is no data.
    """
    data = resources.need_data(task)
    count = min(images, len(data.calibration))
    size = math.ceil(count / math.ceil(count / BATCH))
    augment, chance = augmentation("light", data.spec), torch.Generator().manual_seed(resources.seed)
    done = 0
    for pixels, _ in data.calibration.batches(size, np.arange(count)):
        seen = augment(pixels, chance) if augmented else pixels
        yield normalise(seen, data.spec.preprocessing).to(resources.device)
        done += len(pixels)
        resources.progress(task, done, count, "calibration images")
