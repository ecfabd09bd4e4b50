"""How sparsity grows while a network trains: the share of zeros as a function of how far the climb is."""

from collections.abc import Callable

Schedule = Callable[[float, float, float], float]
"""(initial share s_i, final share s_f, p in [0, 1]: how much of the climb is done) -> the share of zeros now."""


def one_shot(initial: float, final: float, done: float) -> float:
    """All at once, before the first step: s_f."""
    return final


def linear(initial: float, final: float, done: float) -> float:
    """The same number each time: s_i + (s_f - s_i) p."""
    return initial + (final - initial) * done


def cubic(initial: float, final: float, done: float) -> float:
    """Many at first, when there are many to choose from, then ever fewer: s_f + (s_i - s_f) (1 - p)^3.

    With p = (t - t_0) / (n dt). (Zhu and Gupta, https://arxiv.org/abs/1710.01878, equation 1.)
    """
    return final + (initial - final) * (1 - done) ** 3


SCHEDULES: dict[str, Schedule] = {"one-shot": one_shot, "linear": linear, "cubic": cubic}


def rounds_done(taken: int, steps: int, rounds: int) -> int:
    """How many of `rounds`, evenly spread over the first `steps` optimiser steps, are due after `taken` of them."""
    return min(rounds, taken * rounds // steps)
