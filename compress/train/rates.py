"""How the learning rate goes over a training run, as a factor of the rate asked for."""

import math
from collections.abc import Callable

Rate = Callable[[float], float]
"""Progress through the run after the warm-up, 0 at its start and 1 at its end -> factor, at most 1."""


def constant(progress: float) -> float:
    """The same rate throughout: 1."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0: (1 + cos(pi p)) / 2. (Loshchilov and Hutter, https://arxiv.org/abs/1608.03983.)"""
    return (1 + math.cos(math.pi * progress)) / 2


def linear(progress: float) -> float:
    """A straight line from 1 to 0: 1 - p."""
    return 1 - progress


RATES: dict[str, Rate] = {"constant": constant, "cosine": cosine, "linear": linear}


def factor(rate: Rate, step: int, total: int, warmup: int) -> float:
    """The factor for optimiser step `step` of `total`, counted from 0.

    Over the first `warmup` steps it climbs (step + 1) / (warmup + 1), so that no step has a rate of zero.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return rate((step - warmup) / max(1, total - warmup))
