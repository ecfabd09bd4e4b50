"""Images in four parts: train, validation and calibration to work with, and test, which only evaluate reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from compress.data.spec import DatasetSpec
from compress.errors import CompressError

if TYPE_CHECKING:
    from torch import Tensor

Indices = NDArray[np.int64]
VALIDATION_SHARE = 0.1
SAMPLE = 16


class Split(Protocol):
    """Some images, decoded and cropped but not yet normalised, a batch at a time.

    Where `labelled` is false, every label is -1.
    """

    @property
    def labelled(self) -> bool:
        """Whether the images come with labels."""
        ...

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def batches(self, size: int, order: Indices | None = None) -> "Iterator[tuple[Tensor, Tensor]]":
        """Images (N, C, H, W) uint8 and labels (N,) int64, `size` at a time, the last batch what is left.

        `order` holds positions in this split; without it every image comes once, in the split's own order.
        """
        ...


@dataclass(frozen=True)
class Joined:
    """Two splits as one: the images of `first`, then those of `second`."""

    first: Split
    second: Split

    @property
    def labelled(self) -> bool:
        """Whether both come with labels."""
        return self.first.labelled and self.second.labelled

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def batches(self, size: int, order: Indices | None = None) -> "Iterator[tuple[Tensor, Tensor]]":
        """Images (N, C, H, W) uint8 and labels (N,) int64, `size` at a time."""
        import torch

        positions = np.arange(len(self)) if order is None else order
        for start in range(0, len(positions), size):
            chosen = positions[start : start + size]
            late = chosen >= len(self.first)
            sides = ((self.first, np.flatnonzero(~late), 0), (self.second, np.flatnonzero(late), len(self.first)))
            taken = [
                (places, *next(iter(split.batches(len(places), chosen[places] - before))))
                for split, places, before in sides
                if len(places)
            ]
            back = torch.from_numpy(np.argsort(np.concatenate([places for places, _, _ in taken])))
            yield (
                torch.cat([images for _, images, _ in taken])[back],
                torch.cat([labels for _, _, labels in taken])[back],
            )


@dataclass(frozen=True)
class LearningData:
    """What steps may look at: `train` to learn from, `validation` to select by, `calibration` for ranges and statistics.

    `calibration` holds the images of `train` in an order drawn by the seed, so that its first 512 are a sample.
    """

    spec: DatasetSpec
    train: Split
    validation: Split
    calibration: Split


@dataclass(frozen=True)
class Data:
    """All of a data set: what may be learned from, and the test images, to be read once at the end."""

    learning: LearningData
    test: Split

    @property
    def spec(self) -> DatasetSpec:
        """Which data this is."""
        return self.learning.spec


def stratified(labels: Indices, count: int, seed: int) -> tuple[Indices, Indices]:
    """Positions of (the rest, `count` others) with each class's share the same in both, each in ascending order."""
    from sklearn.model_selection import train_test_split

    rest, chosen = train_test_split(np.arange(len(labels)), test_size=count, stratify=labels, random_state=seed)
    return np.sort(rest), np.sort(chosen)


def cut(labels: Indices, classes: tuple[str, ...], seed: int) -> tuple[Indices, Indices]:
    """Positions of (train, validation) among labelled training images: one in ten, and as many as there are classes."""
    few = np.flatnonzero(np.bincount(labels, minlength=len(classes)) < 2)
    if len(few):
        raise CompressError(
            f"class {classes[few[0]]!r} has fewer than two training images, one to learn from and one to validate on. "
            "Add images of it, or leave the class out."
        )
    return stratified(labels, max(len(classes), round(VALIDATION_SHARE * len(labels))), seed)


def shuffled(count: int, seed: int) -> Indices:
    """Every position below `count` once, in the order of `seed`; numpy promises this order never changes."""
    return np.random.RandomState(seed).permutation(count).astype(np.int64)


def sample(count: int) -> Indices:
    """Up to sixteen positions below `count`, evenly spread."""
    return np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64)


def check_labels(labels: Indices, classes: tuple[str, ...], what: str) -> None:
    """Refuse labels outside 0 ... classes - 1, and a class without any image; `what` names the part of the data."""
    if len(classes) < 2:
        raise CompressError(
            f"{what} has fewer than two classes: {', '.join(classes) or 'none'}. Check the labels or the folders."
        )
    outside = labels[(labels < 0) | (labels >= len(classes))]
    if len(outside):
        raise CompressError(
            f"{what} has the label {outside[0]} ({len(outside)} labels are out of range), and with {len(classes)} classes "
            f"labels go from 0 to {len(classes) - 1}. Number the classes from 0, or give all class names."
        )
    absent = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(absent):
        raise CompressError(
            f"{what} has no image of class {classes[absent[0]]!r} ({len(absent)} of {len(classes)} classes are missing). "
            "Every class must be there in training and in test, or the figures mean something else."
        )


def check_images(split: Split, what: str) -> None:
    """Refuse a split whose images show nothing: each of a sample a single colour all over."""
    images, _ = next(split.batches(SAMPLE, sample(len(split))))
    flat = images.flatten(2)
    if bool((flat.amax(2) == flat.amin(2)).all()):
        raise CompressError(
            f"every image looked at in {what} is a single colour: there is nothing to learn or measure. Check the images."
        )
