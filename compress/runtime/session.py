"""Something that answers images with logits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from compress.errors import CompressError
from compress.measurement import Node

Images = NDArray[np.float32]
"""Normalised images, (N, C, H, W)."""

Logits = NDArray[np.float32]
"""One number for each image and class, (N, classes)."""

Inside = Callable[[Images], Mapping[str, NDArray[np.generic]]]
"""From images to what the network computes on the way, by name."""


class Session(Protocol):
    """A network opened by some runtime. It runs on one device with a fixed number of threads."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""

    def __call__(self, images: Images) -> Logits:
        """The logits of a batch, in host memory, and not before they are ready."""

    def outputs(self, names: Sequence[str]) -> Inside:
        """A function from images to these inner tensors; raises UsageError for a name the network does not have."""

    def close(self) -> None:
        """Let go of the network and its memory; the last thing asked of a session."""


@runtime_checkable
class CountsIntegers(Protocol):
    """A session that can tell what its runtime made of a quantized network."""

    def integer_macs(self) -> float | None:
        """The share of multiply-accumulates done by integer kernels, in per cent; None where nothing is quantized."""


@runtime_checkable
class TimesDevice(Protocol):
    """A session that can ask a GPU for its own time."""

    def device_seconds(self, images: Images) -> float:
        """How long the GPU computes for a batch, by its own clock, the copies left out."""


@dataclass(frozen=True)
class Point:
    """An inner tensor by its name, whether a layer with weights computes it, and the names of the tensors made from it."""

    name: str
    layer: bool
    readers: tuple[str, ...]


@runtime_checkable
class ShowsInside(Protocol):
    """A session that knows its inner tensors by name."""

    def points(self) -> tuple[Point, ...]:
        """The tensors that `outputs` can give, in the order in which they are computed."""

    def outputs(self, names: Sequence[str]) -> Inside:
        """As of every session."""


@runtime_checkable
class TellsTimes(Protocol):
    """A session whose runtime can tell where the time of a batch goes."""

    def node_seconds(self, images: Images) -> tuple[Node, ...]:
        """The kernels called for a batch, in their order, each with the time that is usual for it."""


def answers(session: Session, images: Images) -> Logits:
    """The logits of any number of images; where a session takes only so many at a time, the last ones are shown again to make up the number."""
    size: int | None = getattr(session, "batch", None)
    if size is None:
        return session(images)
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    whole = (np.resize(part, (size, *part.shape[1:])) for part in parts)
    return np.concatenate([session(shown)[: len(part)] for shown, part in zip(whole, parts, strict=True)])


def require_fit(images: Images, input_shape: tuple[int, int, int], batch: int | None = None) -> None:
    """Raise CompressError where a session cannot take these images: their type, size, or how many there are.

    `batch` is the only batch size the network takes, None where it takes any.
    """
    if images.dtype != np.float32:
        raise CompressError(
            f"a session takes normalised float32 images, and got {images.dtype}. Give them through "
            "compress.data.normalise."
        )
    if images.ndim != 4 or images.shape[1:] != input_shape or not len(images):
        raise CompressError(
            f"the network takes images of shape (N, {', '.join(map(str, input_shape))}), and got {images.shape}. "
            "Give images of the size and colours it was made for."
        )
    if batch is not None and len(images) != batch:
        raise CompressError(
            f"the network takes {batch} images at a time, and got {len(images)}. "
            f"Give batches of {batch}, or export it with a free batch size."
        )
