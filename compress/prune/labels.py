"""Arithmetic on labels: tensors of integers that say which channel each element of an activation belongs to.

Labels are stored once along every axis on which they do not differ, as tensors with a stride of zero there.
"""

from collections.abc import Sequence

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor


def varies(labels: Tensor, axis: int) -> bool:
    """Whether labels differ along an axis."""
    return labels.shape[axis] > 1 and labels.stride(axis) != 0


def axes(labels: Tensor) -> int:
    """On how many axes labels differ."""
    return sum(varies(labels, axis) for axis in range(labels.dim()))


def lean(labels: Tensor) -> Tensor:
    """The same labels, stored once along every axis on which they do not differ."""
    for axis in range(labels.dim()):
        if varies(labels, axis):
            first = labels.narrow(axis, 0, 1).expand(labels.shape)
            labels = first if torch.equal(labels, first) else labels
    return labels


def reduced(labels: Tensor, dim: int | Sequence[int] | None, shape: torch.Size) -> Tensor | None:
    """Labels after the axes `dim` (None or none named: all) were reduced to `shape`; None where channels lie on them."""
    named = [dim] if isinstance(dim, int) else list(dim or range(labels.dim()))
    gone = {axis % labels.dim() for axis in named}
    if any(varies(labels, axis) for axis in gone):
        return None
    for axis in gone:
        labels = labels.narrow(axis, 0, 1)
    if labels.dim() != len(shape):
        labels = labels[tuple(0 if axis in gone else slice(None) for axis in range(labels.dim()))]
    return labels.expand(shape)


def binds(labels: Tensor, other: Tensor) -> bool:
    """Whether an element-by-element call ties each of `labels` to one of `other`, which is broadcast to them.

    What is one value for all channels, such as a map of the image, does not bind them to each other.
    """
    missing = labels.dim() - other.dim()
    return not any(
        varies(labels, axis) and (axis < missing or other.shape[axis - missing] == 1) for axis in range(labels.dim())
    )


def pairs(left: Tensor, right: Tensor) -> Tensor:
    """Which labels of two tensors of one shape meet, each pair once: (2, n)."""
    for axis in range(left.dim()):
        if not varies(left, axis) and not varies(right, axis):
            left, right = left.narrow(axis, 0, 1), right.narrow(axis, 0, 1)
    beyond = right.max() + 1
    met: Tensor = torch.unique(left * beyond + right)  # far quicker than the unique columns of a matrix
    return torch.stack([met // beyond, met % beyond])


def numbered(ties: Sequence[Tensor], count: int) -> Tensor:
    """For each of `count` labels, the number of the set it belongs to once all `ties`, (2, n) each, hold."""
    left, right = torch.cat(list(ties), 1).numpy()
    graph = coo_array(([True] * len(left), (left, right)), shape=(count, count))
    return torch.from_numpy(connected_components(graph, directed=False)[1])
