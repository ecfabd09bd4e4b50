"""Images as files in folders, decoded when a batch asks for them and never all in memory."""

import dataclasses
import hashlib
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from compress import storage
from compress.data.arrays import COLOUR, GREY
from compress.data.spec import DatasetSpec, Preprocessing
from compress.data.splits import Data, Indices, LearningData, check_images, check_labels, cut, sample, shuffled
from compress.errors import CompressError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""Formats that are decoded; Pillow's others include one that starts a program (EPS runs Ghostscript)."""
WIDE = ("I", "F")
"""How Pillow's names begin of integers and floats, NaN among them, that are no bytes."""
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
RESIZE, CROP = 256, 224
"""What ImageNet classifiers are usually shown: the shorter side at 256 pixels, the middle 224 of it."""


@dataclass(frozen=True)
class FolderSplit:
    """The images of some files, in the shape and colours `preprocessing` gives them."""

    files: tuple[Path, ...]
    labels: Indices
    image_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, size: int, order: Indices | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N, C, H, W) uint8 and labels (N,) int64, `size` at a time; several threads decode one batch ahead.

        Raises CompressError naming a file that is damaged or of another size.
        """
        positions = np.arange(len(self)) if order is None else order
        batches = [positions[start : start + size] for start in range(0, len(positions), size)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoding = self._decoding(pool, batches[0]) if batches else iter(())
            for chosen, following in zip_longest(batches, batches[1:]):
                images = list(decoding)
                if following is not None:
                    decoding = self._decoding(pool, following)
                yield torch.from_numpy(np.stack(images)), torch.from_numpy(self.labels[chosen])

    def pick(self, positions: Indices) -> "FolderSplit":
        """The images at some positions, in that order."""
        return dataclasses.replace(self, files=tuple(self.files[i] for i in positions), labels=self.labels[positions])

    def _decoding(self, pool: ThreadPoolExecutor, chosen: Indices) -> Iterator[Pixels]:
        """The images at some positions, which threads begin to decode now."""
        return pool.map(self._image, [self.files[position] for position in chosen])

    def _image(self, path: Path) -> Pixels:
        image = prepare(decode(path), self.preprocessing)
        if _shape(image) != self.image_shape:
            found, expected = ("x".join(map(str, shape)) for shape in (_shape(image), self.image_shape))
            raise CompressError(f"the image {path} is {found}, and {expected} is expected. Resize it, or take it out.")
        return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def decode(path: Path) -> Image.Image:
    """The image in a file; raises CompressError naming the file where it is damaged, no image, or not of 8 bits."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CompressError(
            f"cannot read the image {path}: {error}. Repair it, or take it out of the folder."
        ) from error
    if image.mode.startswith(WIDE):
        raise CompressError(
            f"the image {path} has numbers of more than 8 bits (mode {image.mode}), and all above 255 would be cut off. "
            "Convert it to 8 bits, or take it out of the folder."
        )
    return image


def prepare(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Colours, then the shorter side to `resize`, then the centre square of side `crop`, as torchvision does it.

    An image smaller than `crop` is left as it is: torchvision would put black around it.
    """
    image = image.convert("RGB" if preprocessing.colour == "rgb" else "L")
    if preprocessing.resize is not None:
        image = F.resize(image, [preprocessing.resize], InterpolationMode(preprocessing.interpolation))
    if preprocessing.crop is not None and min(image.size) >= preprocessing.crop:
        image = F.center_crop(image, [preprocessing.crop])
    return image


def unlabelled(folder: Path, spec: DatasetSpec, seed: int) -> FolderSplit:
    """The images below a folder, without labels, in the shape of `spec` and in the order of `seed`: to calibrate with."""
    files = images_below(folder)
    labels = np.full(len(files), -1, dtype=np.int64)
    split = FolderSplit(files, labels, spec.image_shape, spec.preprocessing, labelled=False)
    check_images(split, str(folder))
    return split.pick(shuffled(len(split), seed))


def read_folder(folder: Path, seed: int, preprocessing: Preprocessing | None = None) -> Data:
    """Data in `train/CLASS/*` and `test/CLASS/*` or `val/CLASS/*`; with all three, `val` is the validation split.

    Without a `preprocessing` it is ImageNet's usual one where most images have 224 pixels and more; smaller
    ones are taken as they are. Raises CompressError for an empty folder and a class missing in a part.
    """
    parts = [part for part in ("train", "val", "test") if (folder / part).is_dir()]
    if "train" not in parts or len(parts) < 2:
        found = f"only {parts[0]}/" if parts else "no such folders"
        raise CompressError(
            f"{folder} needs train/ and test/ (or val/), each with a folder of images for every class; it has {found}."
        )
    classes = _classes(folder / "train")
    listed = {part: _labelled(folder / part, classes) for part in parts}
    digest = hashlib.sha256()
    for files, _ in listed.values():
        for path in files:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n".encode())
    some = listed["train"][0]
    preprocessing = preprocessing or _usual([some[i] for i in sample(len(some))])
    channels, height, width = _shape(prepare(decode(some[0]), preprocessing))
    shape = (channels, preprocessing.crop or height, preprocessing.crop or width)
    spec = DatasetSpec(
        f"imagefolder:{folder.resolve().name}", classes, shape, preprocessing, f"sha256:{digest.hexdigest()}"
    )
    splits = {part: FolderSplit(files, labels, shape, preprocessing) for part, (files, labels) in listed.items()}
    for part, split in splits.items():
        check_images(split, str(folder / part))
    train, test = splits["train"], splits[parts[-1]]
    if len(parts) == 3:
        validation = splits["val"]
    else:
        learn, validate = cut(train.labels, classes, seed)
        train, validation = train.pick(learn), train.pick(validate)
    return Data(LearningData(spec, train, validation, train.pick(shuffled(len(train), seed))), test)


def images_below(folder: Path) -> tuple[Path, ...]:
    """Every image file below a folder, sorted by name; hidden files and files of other types are passed over.

    Raises CompressError for a folder that cannot be read or has no images, and for a link that leads out of it.
    """
    files = tuple(_walk(folder, folder.resolve()))
    if not files:
        raise CompressError(f"{folder} holds no images ({', '.join(SUFFIXES)}). Check the path.")
    return files


def _walk(folder: Path, root: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if entry.is_symlink() and (entry.is_dir() or not entry.resolve().is_relative_to(root)):
            raise CompressError(
                f"{entry} is a link to a folder or out of its own, and such links are not followed. Put the files themselves there."
            )
        if entry.is_dir():
            yield from _walk(entry, root)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise storage.unreadable(folder, "folder of images", error) from error


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in _entries(folder) if entry.is_dir())


def _labelled(folder: Path, classes: tuple[str, ...]) -> tuple[tuple[Path, ...], Indices]:
    strange = sorted(set(_classes(folder)) - set(classes))
    if strange:
        raise CompressError(
            f"{folder} has the class {strange[0]!r}, which is not in train/. Every part needs the same folders of classes."
        )
    found = {label: images_below(folder / name) for label, name in enumerate(classes) if (folder / name).is_dir()}
    labels = np.repeat(np.array(list(found), dtype=np.int64), [len(files) for files in found.values()])
    check_labels(labels, classes, str(folder))
    return tuple(path for files in found.values() for path in files), labels


def _usual(files: list[Path]) -> Preprocessing:
    """What is usually done to images like these: by the size most of them have, and grey where all of them are."""
    images = [decode(path) for path in files]
    usual = GREY if all(image.mode in ("1", "L") for image in images) else COLOUR
    if statistics.median(min(image.size) for image in images) < CROP:
        return usual
    return dataclasses.replace(usual, resize=RESIZE, crop=CROP)


def _shape(image: Image.Image) -> tuple[int, int, int]:
    return (len(image.getbands()), image.height, image.width)
