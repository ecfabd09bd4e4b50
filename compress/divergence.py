"""Where two networks that should agree begin to differ: the first layer after which nothing agrees.

Names of inner tensors differ between runtimes, and folding or fusing removes some of them, so a tensor is held
against every tensor of the same shape on the other side and agrees where one of them carries the same numbers.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.runtime.session import Images, Point, Session, ShowsInside

FEW = 2
"""Images that are looked at inside: every tensor between the layers is held in memory for them."""

Inner = Mapping[str, NDArray[np.floating[Any]]]


def first_difference(before: Session, after: Session, images: Images, least: float) -> str:
    """The first layer of `after` whose numbers, and those of what reads them, are nowhere in `before`; "" where none is.

    Numbers agree when their signal-to-noise ratio is at least `least` decibels. Needs two sessions that can be
    looked into.
    """
    if not (isinstance(before, ShowsInside) and isinstance(after, ShowsInside)):
        return ""
    few = images[:FEW]
    reference: dict[tuple[int, ...], list[NDArray[np.float64]]] = {}
    for values in _inside(before, few).values():
        reference.setdefault(values.shape, []).append(values.astype(np.float64))
    found = _inside(after, few)
    agrees = {name: _known(values, reference.get(values.shape, []), least) for name, values in found.items()}
    for point in after.points():
        # A layer has no counterpart of its own where a batch norm or a bias is folded on one side: its reader has.
        if (
            point.layer
            and point.name in found
            and not any(agrees.get(name, False) for name in (point.name, *point.readers))
        ):
            return point.name
    return ""


def _inside(session: ShowsInside, images: Images) -> Inner:
    """Every inner tensor of floats, by name."""
    points: tuple[Point, ...] = session.points()
    values = session.outputs([point.name for point in points])(images)
    return {name: each for name, each in values.items() if np.issubdtype(each.dtype, np.floating)}  # type: ignore[misc]  # checked here


def _known(values: NDArray[Any], others: list[NDArray[np.float64]], least: float) -> bool:
    """Whether some array carries the same numbers, up to noise this far below them."""
    noise = 10 ** (-least / 10)
    return any(float(((values - other) ** 2).sum()) <= noise * float((other**2).sum()) for other in others)
