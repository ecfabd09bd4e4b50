"""How the learning rate goes over a training run, as a factor of the rate asked for.

Each is a function of how far the run is, so that a run goes on from any step without a scheduler's state.
"""

import math
from collections.abc import Callable

Rate = Callable[[float], float]
"""Progress through the run after the warm-up, 0 at its start and 1 at its end -> factor, at most 1."""


def constant(progress: float) -> float:
    """The same rate throughout: 1."""
    return 1.0


def linear(progress: float) -> float:
    """A straight line from 1 to 0: 1 - p."""
    return 1 - progress


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0: (1 + cos(pi p)) / 2. (Loshchilov and Hutter, https://arxiv.org/abs/1608.03983.)"""
    return (1 + math.cos(math.pi * progress)) / 2


def restarts(progress: float, cycles: int) -> float:
    """The cosine, started anew `cycles` times, equally far apart. (https://arxiv.org/abs/1608.03983.)"""
    return cosine(progress * cycles % 1) if progress < 1 else 0.0


def step(progress: float, cycles: int, decay: float) -> float:
    """Stairs of equal length, each `decay` times the one before: decay^floor(cycles p)."""
    return math.pow(decay, min(math.floor(progress * cycles), cycles - 1))


def exponential(progress: float, decay: float) -> float:
    """From 1 to `decay`, by the same factor each step: decay^p."""
    return math.pow(decay, progress)


def inverse(progress: float, decay: float) -> float:
    """From 1 to `decay` as one over time: 1 / (1 + p (1 / decay - 1))."""
    return 1 / (1 + progress * (1 / decay - 1))


def one_cycle(progress: float) -> float:
    """By a cosine from 1/25 to 1 over the first 0.3, then by another to 1/250,000. (Smith, https://arxiv.org/abs/1708.07120.)"""
    start, end, rise = 1 / 25, 1 / 250_000, 0.3
    if progress < rise:
        return start + (1 - start) * cosine(1 - progress / rise)
    return end + (1 - end) * cosine((progress - rise) / (1 - rise))


RATES = ("cosine", "linear", "constant", "step", "exponential", "inverse", "restarts", "one-cycle")


def rate(name: str, cycles: int, decay: float) -> Rate:
    """The rate of a name in `RATES`; `cycles` counts its stairs or restarts, `decay` is how far it falls."""
    rates: dict[str, Rate] = {
        "cosine": cosine,
        "linear": linear,
        "constant": constant,
        "step": lambda progress: step(progress, cycles, decay),
        "exponential": lambda progress: exponential(progress, decay),
        "inverse": lambda progress: inverse(progress, decay),
        "restarts": lambda progress: restarts(progress, cycles),
        "one-cycle": one_cycle,
    }
    return rates[name]


WARMUPS: dict[str, Rate] = {
    "linear": lambda progress: progress,
    "exponential": lambda progress: 0.01 ** (1 - progress),
    "cosine": lambda progress: cosine(1 - progress),
}
"""How the factor climbs, from nearly 0 to 1: in a line, from 1/100 by the same factor each step, or as half a cosine."""


def factor(rate: Rate, step: int, total: int, warmup: int, shape: str = "linear") -> float:
    """The factor for optimiser step `step` of `total`, counted from 0.

    Over the first `warmup` steps it climbs in the `shape` of a name in `WARMUPS`, whose progress is
    (step + 1) / (warmup + 1), so that no step has a rate of zero.
    """
    if step < warmup:
        return WARMUPS[shape]((step + 1) / (warmup + 1))
    return rate((step - warmup) / max(1, total - warmup))
