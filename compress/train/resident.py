"""Training images kept where the network is, so that no batch has to be carried there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from compress.data.splits import Indices, Split

LARGEST = 8 * 2**30
"""Bytes of images that are kept on a device at most."""


class Resident:
    """A split whose images lie on `device`; batches are the same as the split's own."""

    def __init__(self, split: Split, device: str) -> None:
        pairs = [(images.to(device), labels.to(device)) for images, labels in split.batches(1024)]
        self.images, self.labels = (torch.cat(each) for each in zip(*pairs, strict=True))
        self.labelled = split.labelled

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def batches(self, size: int, order: Indices | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N, C, H, W) uint8 and labels (N,) int64 on the device, `size` at a time."""
        positions = torch.arange(len(self)) if order is None else torch.from_numpy(order)
        for chosen in torch.split(positions.to(self.labels.device), size):
            yield self.images[chosen], self.labels[chosen]


def near(split: Split, image_shape: tuple[int, int, int], device: str) -> Split:
    """The split itself on a CPU or where its images are too many to keep; else a copy of it on `device`."""
    size = len(split) * image_shape[0] * image_shape[1] * image_shape[2]
    if not device.startswith("cuda") or size > LARGEST:
        return split
    return Resident(split, device)
