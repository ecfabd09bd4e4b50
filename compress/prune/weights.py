"""Which weights of a layer are worth least, and which of them go: functions of tensors that know no network.

Weights that are zero already always go first, so that zeroing twice composes.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Scores of one layer's weights, of their shape and not negative; the lowest go first.

Given the weights and, of their shape, the mean over batches of their squared gradients (zeros where the
criterion does not read it).
"""


def magnitude(weights: Tensor, squared_gradients: Tensor) -> Tensor:
    """|w|."""
    return weights.abs()


def lamp(weights: Tensor, squared_gradients: Tensor) -> Tensor:
    """w^2 / (sum of the squares of w and of all weights of its layer ranked above it): magnitudes that layers can be compared by.

    The highest score of every layer is 1. (Lee et al., https://arxiv.org/abs/2010.07611, equation 3.)
    """
    squares, places = weights.flatten().double().square().sort(stable=True)
    above = squares.flip(0).cumsum(0).flip(0).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.empty_like(squares).scatter_(0, places, squares / above).reshape(weights.shape)


def taylor(weights: Tensor, squared_gradients: Tensor) -> Tensor:
    """E[(g w)^2]: to first order, the squared change of the loss without the weight, g its gradient on a batch.

    (Molchanov et al., https://arxiv.org/abs/1906.10771, equation 8, for single weights.)
    """
    return weights.square() * squared_gradients


CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "lamp": lamp, "taylor": taylor}


def ranked(weights: Tensor, scores: Tensor, largest: float = 1.0) -> Tensor:
    """The scores with -1 where a weight is zero already, and infinity for those that no more than a share `largest` reaches."""
    zero = weights.flatten() == 0
    ordered = scores.flatten().masked_fill(zero, -1)
    spared = ordered.sort(stable=True).indices[int(largest * len(ordered)) :]
    return ordered.scatter(0, spared, torch.inf).masked_fill(zero, -1).reshape(weights.shape)


def lowest(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """True for exactly `count` scores, the lowest of all layers together; of equal ones those that come first."""
    flat = torch.cat([own.flatten() for own in scores.values()])
    going = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    going[flat.sort(stable=True).indices[:count]] = True
    pieces = torch.split(going, [own.numel() for own in scores.values()])
    return {name: piece.reshape(own.shape) for (name, own), piece in zip(scores.items(), pieces, strict=True)}


def has_two_of_four(weights: Tensor, axis: int) -> bool:
    """Whether two of every four weights at least that follow each other along `axis` are zero."""
    if weights.shape[axis] % 4:
        return False
    zeros = (weights == 0).movedim(axis, -1)
    return bool((zeros.reshape(*zeros.shape[:-1], -1, 4).sum(-1) >= 2).all())


def two_of_four(scores: Tensor, axis: int) -> Tensor:
    """True for the two lowest of every four scores that follow each other along `axis`, whose length is a multiple of four.

    The pattern of sparse tensor cores (Mishra et al., https://arxiv.org/abs/2104.08378) where `axis` holds the
    input channels.
    """
    along = scores.movedim(axis, -1)
    fours = along.reshape(*along.shape[:-1], -1, 4)
    going = torch.zeros_like(fours, dtype=torch.bool)
    going.scatter_(-1, fours.sort(dim=-1, stable=True).indices[..., :2], True)
    return going.reshape(along.shape).movedim(-1, axis)
