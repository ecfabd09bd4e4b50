"""Data sets by name: bundled, downloaded, or the user's own."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.architecture import Architecture
from compress.data.fits import fits
from compress.data.spec import DatasetSpec, Preprocessing
from compress.data.splits import Data, stratified
from compress.errors import ResourceError, UsageError, unknown

if TYPE_CHECKING:
    from compress.data.arrays import Part

TEST_DIGITS = 360


def load(
    name: str,
    folder: Path | None = None,
    seed: int = 0,
    calibration: Path | None = None,
    preprocessing: Preprocessing | None = None,
) -> Data:
    """A data set cut into its four splits.

    `name` is one of `DATASETS`, the last two with a path: `npz:PATH`, `imagefolder:PATH`. `folder` is where
    downloaded data lies or goes (default: compress in the user's cache). `seed` draws validation and
    calibration from the training images, never the test images. `calibration` is a folder of images, without
    labels, that takes the place of the calibration split. `preprocessing` replaces the data's own, where a
    network was made for another.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"the seed {seed} is not between 0 and {2**32 - 1}.")
    kind, colon, path = name.partition(":")
    if kind not in DATASETS:
        raise unknown("data", name, [f"{known}:PATH" if known in LOCATED else known for known in DATASETS])
    if (kind in LOCATED) != bool(path) or (colon and not path):
        raise UsageError(
            f"{name!r} does not say which data: write {kind}:PATH."
            if kind in LOCATED
            else f"{kind} takes no path: write {kind}."
        )
    data = DATASETS[kind](Path(path).expanduser() if path else folder or _cache(), seed, preprocessing)
    learning = dataclasses.replace(data.learning, spec=dataclasses.replace(data.spec, split_seed=seed))
    if calibration is not None:
        from compress.data.folder import unlabelled

        learning = dataclasses.replace(learning, calibration=unlabelled(calibration, data.spec, seed))
    return dataclasses.replace(data, learning=learning)


def load_for(
    architecture: Architecture,
    made_for: DatasetSpec | None,
    name: str,
    folder: Path | None = None,
    calibration: Path | None = None,
) -> Data:
    """A data set as a network that was `made_for` some data is to be shown it: with that preprocessing, cut as it was.

    Raises CompressError where the images or the classes are not those of the network.
    """
    seed, preprocessing = (made_for.split_seed, made_for.preprocessing) if made_for else (0, None)
    data = load(name, folder, seed, calibration, preprocessing)
    fits(data.spec, architecture, made_for)
    return data


def _digits(folder: Path, seed: int, preprocessing: Preprocessing | None) -> Data:
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels of 0 to 16, as 32x32 bytes; the same 360 are always the test."""
    from PIL import Image
    from sklearn.datasets import load_digits

    from compress.data.arrays import Part, assemble

    small, labels = load_digits(return_X_y=True)
    pixels = np.rint(small.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    # Pillow resizes bytes in integers, so the images, and with them the digest, are the same on every machine.
    images = np.stack(
        [np.asarray(Image.fromarray(digit).resize((32, 32), Image.Resampling.BILINEAR)) for digit in pixels]
    )
    labels = labels.astype(np.int64)
    train, test = (
        Part(images[chosen, ..., None], labels[chosen]) for chosen in stratified(labels, TEST_DIGITS, seed=0)
    )
    return assemble("digits", train, test, tuple(str(digit) for digit in range(10)), seed, preprocessing)


def _downloaded(name: str, dataset: str) -> Callable[[Path, int, Preprocessing | None], Data]:
    """The reader of one of torchvision's data sets, which downloads it where the folder does not hold it."""

    def read(folder: Path, seed: int, preprocessing: Preprocessing | None) -> Data:
        from compress.data.arrays import assemble

        train, classes = _torchvision(name, dataset, folder, train=True)
        test, _ = _torchvision(name, dataset, folder, train=False)
        return assemble(name, train, test, classes, seed, preprocessing)

    return read


def _torchvision(name: str, dataset: str, folder: Path, train: bool) -> "tuple[Part, tuple[str, ...]]":
    from torchvision import datasets

    from compress.data.arrays import Part

    make = getattr(datasets, dataset)
    absent_or_damaged = (OSError, RuntimeError, AssertionError, ValueError)  # what torchvision raises for either
    try:
        found = make(folder, train=train)
    except absent_or_damaged:
        try:
            found = make(folder, train=train, download=True)
        except absent_or_damaged as error:
            raise ResourceError(
                f"{name} is not in {folder}, or is damaged there, and cannot be downloaded: {' '.join(str(error).split())}. "
                "Check the connection, delete damaged files, or give the folder that holds it."
            ) from error
    images = np.asarray(found.data)
    labels = np.asarray(found.targets, np.int64)
    return Part(images if images.ndim == 4 else images[..., None], labels), tuple(found.classes)


def _npz(path: Path, seed: int, preprocessing: Preprocessing | None) -> Data:
    from compress.data.arrays import assemble, read_npz

    train, test, classes = read_npz(path)
    return assemble(f"npz:{path.name}", train, test, classes, seed, preprocessing)


def _imagefolder(path: Path, seed: int, preprocessing: Preprocessing | None) -> Data:
    from compress.data.folder import read_folder

    return read_folder(path, seed, preprocessing)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "compress"


DATASETS: dict[str, Callable[[Path, int, Preprocessing | None], Data]] = {
    "digits": _digits,
    "cifar10": _downloaded("cifar10", "CIFAR10"),
    "cifar100": _downloaded("cifar100", "CIFAR100"),
    "fashion-mnist": _downloaded("fashion-mnist", "FashionMNIST"),
    "npz": _npz,
    "imagefolder": _imagefolder,
}
"""Each name's reader, of (folder or path, seed, preprocessing)."""
LOCATED = ("npz", "imagefolder")
"""Names that take a path."""
