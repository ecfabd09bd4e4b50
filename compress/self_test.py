"""How often the benchmark itself is wrong on this machine: a file against itself, and against itself made 10 % slower."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.interleave import Clock, Effort, Run, interleave
from compress.interval import latency_interval
from compress.progress import Progress, silent
from compress.runtime import null, open_session

if TYPE_CHECKING:
    from compress.networks import UserNetwork

EFFORT = Effort(precision=0.02, seconds=1.0)
ANSWERS = 10
"""Answers that the baseline gives in a run; one more of them is the injected 10 %."""
INJECTED = 1 / ANSWERS
COST, NOISE = 0.0005, 0.05
"""Seconds of a simulated run, and the spread of the log-normal factor on it."""


@dataclass(frozen=True)
class Trials:
    """Some interleaved benchmarks of a candidate that is slower by `injected`, 0 for the baseline itself.

    `shown` counts the 95 % intervals of the latency ratio that do not hold 1, `covering` those that hold the
    true ratio; `half_widths` has half of each interval, as a share of its median.
    """

    what: str
    injected: float
    shown: int
    covering: int
    half_widths: tuple[float, ...]

    @property
    def runs(self) -> int:
        """How many benchmarks were made."""
        return len(self.half_widths)

    @property
    def wrong(self) -> int:
        """False alarms, where nothing was injected; else the slow-downs that were not shown."""
        return self.runs - self.shown if self.injected else self.shown


def self_test(
    path: Path | None,
    runtime: str,
    *,
    runs: int = 20,
    batch: int = 1,
    threads: int = 1,
    device: str = "cpu",
    user: "UserNetwork | None" = None,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = silent,
) -> tuple[Trials, ...]:
    """Benchmark sessions of known cost, and a file or (without one) a matrix product, each against itself and made slower.

    Raises CompressError where the file cannot be opened, before anything is timed. `user` is as in `open_session`.
    """
    answer: Run
    with contextlib.ExitStack() as opened:
        if path is None:
            matrix = np.random.default_rng(0).standard_normal((128, 128), dtype=np.float32)
            what, answer = "a matrix product", partial(np.dot, matrix, matrix)
        else:
            session = open_session(runtime, path, threads=threads, device=device, user=user)
            opened.callback(session.close)
            images = np.random.default_rng(0).standard_normal((batch, *session.input_shape), dtype=np.float32)
            what, answer = f"{path.name}, batch {batch}", partial(session, images)
        return (*simulated(runs, progress), *real(what, answer, runs, clock, progress))


def simulated(runs: int, progress: Progress = silent) -> Iterator[Trials]:
    """Null sessions on a simulated clock."""
    clock, draw = null.Clock(), np.random.default_rng(0)
    images = np.zeros((1, 1, 2, 2), np.float32)

    def session(seconds: float) -> Run:
        return partial(null.NullSession(lambda: seconds * float(draw.lognormal(0, NOISE)), clock), images)

    for injected in (0.0, INJECTED):
        sides = session(COST), session(COST * (1 + injected))
        yield trials(f"simulated, {NOISE:.0%} noise", *sides, injected, runs, clock=clock, progress=progress)


def real(what: str, answer: Run, runs: int, clock: Clock, progress: Progress = silent) -> Iterator[Trials]:
    """Something that takes real time: ten answers against ten, and against eleven."""
    for more in (0, 1):
        sides = repeated(answer, ANSWERS), repeated(answer, ANSWERS + more)
        yield trials(what, *sides, more * INJECTED, runs, clock=clock, progress=progress)


def repeated(answer: Run, times: int) -> Run:
    """An answer that costs so many times one answer."""

    def run() -> None:
        for _ in range(times):
            answer()

    return run


def trials(
    what: str,
    baseline: Run,
    candidate: Run,
    injected: float,
    runs: int,
    effort: Effort = EFFORT,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = silent,
) -> Trials:
    """Benchmark a candidate so many times, each time in an order of its own."""
    shown, covering, half_widths = 0, 0, []
    for number in range(runs):
        progress(f"{what} +{injected:.0%}", number, runs, "")
        timed = interleave([baseline, candidate], effort, np.random.default_rng(number), clock)
        interval = latency_interval(timed.ratios(1))
        shown += not interval.low <= 1 <= interval.high
        covering += interval.low <= 1 + injected <= interval.high
        half_widths.append(interval.precision)
    progress(f"{what} +{injected:.0%}", runs, runs, "")
    return Trials(what, injected, shown, covering, tuple(half_widths))
