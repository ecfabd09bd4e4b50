"""Which data a network was made for, as a value that travels in every checkpoint and sidecar.

The folder the images lie in is not part of it: that is given each time, by `--data`.
"""

from typing import Literal

from pydantic.dataclasses import dataclass

from compress.architecture import STRICT


@dataclass(frozen=True, config=STRICT)
class Preprocessing:
    """What is done to an image, in this order: resize the shorter side, centre crop, scale to [0, 1], normalise.

    `resize` is the shorter side in pixels (None leaves the size), `crop` the side of the centre square
    (None takes the whole). `mean` and `std` are per channel, of values in [0, 1]: x' = (x / 255 - mean) / std.
    """

    colour: Literal["rgb", "grey"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    crop: int | None = None


@dataclass(frozen=True, config=STRICT)
class DatasetSpec:
    """Which data: its name, its classes in label order, its image shape (C, H, W), the preprocessing, and a digest.

    `digest` is over the images and labels of train and test, or over the names and sizes of image files; two specs
    with the same digest hold the same data.
    `split_seed` drew the validation images from the train split: whatever is done to a network later draws the
    same ones, so that it never trains on them.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    digest: str
    split_seed: int = 0
