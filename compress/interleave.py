"""Timing several sessions against each other on a machine that does other things too.

Baseline and candidates take turns in random order. A turn is 20 runs, and 5 ms at least; its sample is their
25th percentile, which a run that was interrupted does not move. What is trusted is the ratio of the two
samples of one round: whatever slows the machine for longer than a round slows both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compress.errors import UsageError
from compress.interval import ratio_interval
from compress.progress import Progress, silent

Clock = Callable[[], int]
"""The time in nanoseconds, from any start."""

Run = Callable[[], object]
"""Answers one batch, and returns when it is done."""

RUNS, MOST_RUNS, TURN_SECONDS, SAMPLE_PERCENTILE = 20, 2000, 0.005, 25
FEWEST_ROUNDS, FIRST_LOOK, LOOK_AGAIN = 6, 10, 1.5
"""The ratios' interval is looked at after 10 rounds and whenever their number has grown by half: adding
rounds one by one until the interval is narrow stops at a lucky one."""

WARM_UP_RUNS, WARM_UP_BLOCKS, STEADY = 5, 50, 0.05
NOISE_SECONDS, NOISY = 0.1, 0.10
"""A machine is called noisy when the middle half of the baseline's runs in 0.1 s spreads over more than 10 % of their median."""


@dataclass(frozen=True)
class Effort:
    """How long to go on: until every ratio is known to `precision` (0.02 is within 2 %), or the budget is used up.

    The budget is `rounds`, and `seconds` with the warm-up in them; the first 6 rounds are made whatever they
    take, for without them there is no interval.
    """

    precision: float = 0.02
    seconds: float = 20.0
    rounds: int = 100

    def __post_init__(self) -> None:
        if not (0 < self.precision < 1 and 0 < self.seconds < math.inf and self.rounds >= FEWEST_ROUNDS):
            raise UsageError(
                f"cannot measure to a precision of {self.precision:g} in {self.seconds:g} s and {self.rounds} rounds: the "
                f"precision is a share between 0 and 1, the seconds are above 0, and the rounds at least {FEWEST_ROUNDS}."
            )


@dataclass(frozen=True)
class Series:
    """The times of one session in seconds: every run by round, and one sample a round.

    `steady` says whether its warm-up had come to an end before them.
    """

    rounds: tuple[tuple[float, ...], ...]
    samples: tuple[float, ...]
    steady: bool


@dataclass(frozen=True)
class Interleaved:
    """What was timed, the baseline first; `noise` is the spread of the baseline's runs before the first round."""

    series: tuple[Series, ...]
    noise: float

    def ratios(self, number: int) -> tuple[float, ...]:
        """The time of series `number` over the baseline's, one value a round."""
        pairs = zip(self.series[number].samples, self.series[0].samples, strict=True)
        return tuple(candidate / baseline for candidate, baseline in pairs)


def interleave(
    runs: Sequence[Run],
    effort: Effort,
    order: np.random.Generator,
    clock: Clock,
    progress: Progress = silent,
    task: str = "benchmark",
) -> Interleaved:
    """Time `runs`, the baseline first, in rounds of one turn each, in the random order that `order` draws."""
    deadline = clock() + round(effort.seconds * 1e9)
    steady = [warm_up(run, clock, deadline) for run in runs]
    noise = spread(turn(runs[0], clock, NOISE_SECONDS))
    rounds: list[list[tuple[float, ...]]] = [[] for _ in runs]
    samples: list[list[float]] = [[] for _ in runs]
    done, look, over = 0, FIRST_LOOK, False
    while not over:
        for number in order.permutation(len(runs)):
            rounds[number].append(turn(runs[number], clock))
            samples[number].append(sample(rounds[number][-1]))
        done += 1
        over = done >= effort.rounds or (done >= FEWEST_ROUNDS and clock() >= deadline)
        if done == look and not over:
            look = math.ceil(done * LOOK_AGAIN)
            over = _precision(samples) <= effort.precision
        progress(task, effort.rounds if over else done, effort.rounds, f"round {done}")
    series = (Series(tuple(each), tuple(samples[number]), steady[number]) for number, each in enumerate(rounds))
    return Interleaved(tuple(series), noise)


def turn(run: Run, clock: Clock, seconds: float = TURN_SECONDS, fewest: int = RUNS) -> tuple[float, ...]:
    """The times of as many runs as fill `seconds`, `fewest` at least and 2,000 at most."""
    taken: list[int] = []
    left = round(seconds * 1e9)
    while len(taken) < fewest or (left > 0 and len(taken) < MOST_RUNS):
        start = clock()
        run()
        taken.append(clock() - start)
        left -= taken[-1]
    return tuple(each / 1e9 for each in taken)


def sample(runs: Sequence[float]) -> float:
    """The time that stands for a turn."""
    return float(np.percentile(runs, SAMPLE_PERCENTILE))


def spread(runs: Sequence[float]) -> float:
    """How far the middle half of some runs lies apart, as a share of their median."""
    low, middle, high = np.percentile(runs, (25, 50, 75))
    return float((high - low) / middle)


def warm_up(run: Run, clock: Clock, deadline: int) -> bool:
    """Run until a block of runs has twice been no more than 5 % faster than the block before; False where it never was.

    It ends after 50 blocks, or at the deadline. What gets slower is not waited for: both sides have that in common.
    """
    before, calm = math.inf, 0
    for _ in range(WARM_UP_BLOCKS):
        now = float(np.median(turn(run, clock, fewest=WARM_UP_RUNS)))
        calm = calm + 1 if now >= before * (1 - STEADY) else 0
        if calm == 2:
            return True
        if clock() >= deadline:
            break
        before = now
    return False


def _precision(samples: Sequence[Sequence[float]]) -> float:
    """The precision of the ratio to the baseline's samples that is known worst."""
    baseline, *candidates = samples
    intervals = (ratio_interval(np.divide(each, baseline).tolist()) for each in candidates)
    return max((interval.precision for interval in intervals), default=0.0)
