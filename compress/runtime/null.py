"""Sessions that compute nothing and cost what they are told: what timing code is tested with, instead of a clock."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from compress import document
from compress.architecture import STRICT
from compress.errors import unknown
from compress.networks import UserNetwork
from compress.runtime.session import Images, Inside, Logits, require_fit

KIND, FORMAT = "compress null session", 1


class Clock:
    """Simulated time in nanoseconds: it passes when someone says so, and reading it takes none."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        """The time."""
        return self.now

    def spend(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * 1e9)


CLOCK = Clock()
"""The clock that sessions opened from a file spend their time on; give it to `benchmark` with them."""


@dataclass(frozen=True, config=STRICT)
class Cost:
    """The file a null session is opened from: what it answers, and what that costs.

    A batch takes `seconds` times a log-normal factor of spread `noise`, drawn from `seed`, and the session
    holds `memory` bytes.
    """

    input_shape: tuple[int, int, int] = (1, 2, 2)
    classes: int = 3
    seconds: float = pydantic.Field(default=0.001, ge=1e-6, allow_inf_nan=False)
    noise: float = pydantic.Field(default=0.0, ge=0, allow_inf_nan=False)
    memory: int = pydantic.Field(default=0, ge=0)
    seed: int = 0


def write(path: Path, cost: Cost) -> None:
    """Write a file that `open_null` opens."""
    document.write(path, KIND, FORMAT, cost)


def open_null(path: Path, *, threads: int = 1, device: str = "cpu", user: UserNetwork | None = None) -> "NullSession":
    """A session of known cost on the simulated clock; threads and device change nothing."""
    cost = document.read(path, KIND, FORMAT, Cost)
    draw = np.random.default_rng(cost.seed)

    def seconds() -> float:
        return cost.seconds * float(draw.lognormal(0.0, cost.noise))

    return NullSession(seconds, CLOCK, cost.input_shape, cost.classes, cost.memory)


class NullSession:
    """A session whose logits are the first pixels of each image (again from the start where there are too few), and whose time is what `seconds` says for each run."""

    def __init__(
        self,
        seconds: Callable[[], float],
        clock: Clock,
        input_shape: tuple[int, int, int] = (1, 2, 2),
        classes: int = 3,
        memory: int = 0,
    ) -> None:
        self.seconds, self.clock, self.input_shape, self.classes = seconds, clock, input_shape, classes
        self._held: NDArray[np.uint8] | None = np.ones(memory, np.uint8)

    def __call__(self, images: Images) -> Logits:
        """The logits of a batch, after their time has passed."""
        require_fit(images, self.input_shape)
        self.clock.spend(self.seconds())
        pixels = images.reshape(len(images), -1)
        return pixels[:, np.arange(self.classes) % pixels.shape[1]]

    def outputs(self, names: Sequence[str]) -> Inside:
        """There is one inner tensor, `images`."""
        for name in names:
            if name != "images":
                raise unknown("tensor", name, ["images"])
        return lambda images: dict.fromkeys(names, images)

    def close(self) -> None:
        """Let go of the memory."""
        self._held = None
