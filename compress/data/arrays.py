"""Data sets that are arrays in memory: bundled ones, downloaded ones, and the user's own `.npz`."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.spec import DatasetSpec, Preprocessing
from compress.data.splits import Data, Indices, LearningData, check_images, check_labels, cut, shuffled
from compress.errors import CompressError, nearest

KEYS = ("train_images", "train_labels", "test_images", "test_labels")
COLOUR = Preprocessing("rgb", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""ImageNet's statistics, which most published weights for colour images expect, the ResNets for CIFAR too."""
GREY = Preprocessing("grey", (0.5,), (0.25,))


@dataclass(frozen=True)
class Part:
    """Images (N, H, W, C) uint8 and their labels (N,) int64."""

    images: NDArray[np.uint8]
    labels: Indices


@dataclass(frozen=True)
class ArraySplit:
    """The images of a part at the given positions; the arrays are shared, not copied."""

    part: Part
    positions: Indices
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.positions)

    def batches(self, size: int, order: Indices | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N, C, H, W) uint8 and labels (N,) int64, `size` at a time."""
        positions = self.positions if order is None else self.positions[order]
        for start in range(0, len(positions), size):
            chosen = positions[start : start + size]
            images = np.ascontiguousarray(self.part.images[chosen].transpose(0, 3, 1, 2))
            yield torch.from_numpy(images), torch.from_numpy(self.part.labels[chosen])


def assemble(
    name: str, train: Part, test: Part, classes: tuple[str, ...], seed: int, preprocessing: Preprocessing | None = None
) -> Data:
    """Check the arrays, cut the training part by `seed`, and describe the whole.

    Without a `preprocessing`, colour images get ImageNet's mean and standard deviation, grey ones 0.5 and 0.25.
    Raises CompressError for images that are all one colour, labels out of range, or a class that is missing.
    """
    height, width, channels = train.images.shape[1:]
    preprocessing = preprocessing or (COLOUR if channels == 3 else GREY)
    check_labels(train.labels, classes, f"the training part of {name}")
    check_labels(test.labels, classes, f"the test part of {name}")
    if len(preprocessing.mean) != channels or len(preprocessing.std) != channels:
        raise CompressError(
            f"the images of {name} have {channels} channels, and the preprocessing is for {len(preprocessing.mean)}. "
            "Give data with the colours the network was made for."
        )
    side = preprocessing.crop or preprocessing.resize
    if side is not None and (height, width) != (side, side):
        raise CompressError(
            f"the images of {name} are {height}x{width} and are used as they are, and the preprocessing asks for {side} "
            "pixels. Give the images as files: --data imagefolder:PATH."
        )
    digest = hashlib.sha256()
    for array in (train.images, train.labels, test.images, test.labels):
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    spec = DatasetSpec(name, classes, (channels, height, width), preprocessing, f"sha256:{digest.hexdigest()}")
    learn, validate = cut(train.labels, classes, seed)
    test_split = ArraySplit(test, np.arange(len(test.labels)))
    learning = LearningData(
        spec,
        ArraySplit(train, learn),
        ArraySplit(train, validate),
        ArraySplit(train, learn[shuffled(len(learn), seed)]),
    )
    check_images(learning.train, f"the training part of {name}")
    check_images(test_split, f"the test part of {name}")
    return Data(learning, test_split)


def read_npz(path: Path) -> tuple[Part, Part, tuple[str, ...]]:
    """(train, test, classes) of a `.npz` with `train_images`, `train_labels`, `test_images`, `test_labels`.

    Images are (N, H, W), (N, H, W, 1) or (N, H, W, 3) uint8, labels (N,) integers from 0; `class_names` is
    optional. Raises CompressError for anything else; pickled objects in the file are never read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = file.files
            arrays = {key: file[key] for key in keys if key in (*KEYS, "class_names")}
    except OSError as error:
        raise CompressError(
            f"cannot read {path}: {error.strerror or error}. Give a .npz file with {', '.join(KEYS)}."
        ) from error
    except Exception as error:  # numpy and zipfile raise errors of many unrelated types for a damaged file
        raise CompressError(
            f"{path} is not a .npz of plain arrays, or was cut short. Write it with numpy.savez, without objects."
        ) from error
    for key in KEYS:
        if key not in arrays:
            near = nearest(key, keys, 1)
            raise CompressError(
                f"{path} has no array {key!r}{f' (but {near[0]!r})' if near else ''}. It needs {', '.join(KEYS)}."
            )
    train, test = (_part(arrays, kind, f"{path}, {kind}") for kind in ("train", "test"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise CompressError(
            f"{path}: training images are {_shape(train)} and test images {_shape(test)}. They must have one size."
        )
    if "class_names" in arrays:
        return train, test, tuple(str(name) for name in arrays["class_names"].ravel())
    # Every class has an image, so there are no more classes than images, whatever a broken label says.
    return train, test, tuple(str(label) for label in range(min(train.labels.max() + 1, len(train.labels))))


def _part(arrays: dict[str, NDArray[np.generic]], kind: str, what: str) -> Part:
    images, labels = arrays[f"{kind}_images"], arrays[f"{kind}_labels"]
    if images.dtype != np.uint8:
        broken = images.dtype.kind == "f" and not np.isfinite(images.astype(np.float64)).all()
        raise CompressError(
            f"{what}_images: the images are {images.dtype}{' and hold NaN or infinity' if broken else ''}, not uint8. "
            "Give values from 0 to 255 as they were before any normalisation; that is done here."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise CompressError(
            f"{what}_images has the shape {images.shape}. Give (N, H, W), (N, H, W, 1) or (N, H, W, 3), and no empty one."
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise CompressError(
            f"{what}_labels is {labels.dtype} {labels.shape}. Give one integer for each of the {len(images)} images."
        )
    return Part(images.astype(np.uint8, copy=False), labels.astype(np.int64))


def _shape(part: Part) -> str:
    return "x".join(map(str, part.images.shape[1:]))
