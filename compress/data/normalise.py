"""From bytes to what a network computes with."""

import torch
from torch import Tensor

from compress.data.spec import Preprocessing


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """x' = (x / 255 - mean) / std, per channel: (N, C, H, W) uint8 to float32, on the device of `images`.

    Raises TypeError for images that are not bytes: those would have been scaled already.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"normalise takes uint8 images, not {images.dtype}")
    mean, std = (
        torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    return images.float().div_(255).sub_(mean).div_(std)
