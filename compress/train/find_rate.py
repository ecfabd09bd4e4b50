"""Which learning rate to take: the loss while the rate climbs from very low to very high."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compress import storage
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.errors import CompressError
from compress.pipeline import Resources
from compress.train.distributed import Place
from compress.train.loop import State, fit, steps_per_epoch
from compress.train.plan import prepare
from compress.train.stopping import smoothed

if TYPE_CHECKING:
    from compress.train.step import Train

FEWEST = 10
"""Steps from which a test can be read; their rates are too low to do harm, and their losses say where it began."""
TOO_HIGH = 4.0
"""The test ends where the smoothed loss is so many times the mean of its first ten."""
SMOOTHING = 0.8


@dataclasses.dataclass(frozen=True)
class RateTest:
    """A learning-rate range test: the rate of each step, and the loss before it, smoothed."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the loss was lowest: near the steepest fall, safely before it rises."""
        return self.rates[min(range(len(self.losses)), key=lambda step: self.losses[step])] / 10


class _Enough(Exception):
    """The loss has shown what it has to show."""


def find_rate(
    train: "Train",
    checkpoint: Checkpoint,
    resources: Resources,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
) -> RateTest:
    """Train a copy of the network for up to `steps` steps at rates climbing evenly from `lowest` to `highest`.

    Everything else is as `train` says, but the teacher, which is left out. Nothing is kept.
    (Smith, https://arxiv.org/abs/1506.01186, section 3.3.) Raises CompressError where not even ten steps can be taken.
    """
    data = resources.need_data("the rate test")
    network = build(checkpoint, resources.user)
    alone = train.model_copy(update={"rate": lowest, "distillation": 0.0, "features": (), "patience": None})
    place = Place(0, 1, resources.device)
    prepared = prepare(
        alone, network, data, place, resources.seed, masked=checkpoint.architecture.masked, validates=False
    )
    losses: list[float] = []

    def record(logits: Tensor, teacher: Tensor | None, labels: Tensor) -> Tensor:
        loss = prepared.plan.objective(logits, teacher, labels)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise _Enough
        return loss

    def stop(state: State) -> None:
        resources.progress("find rate", state.taken, steps, f"loss {losses[-1]:.3f}")
        began = sum(losses[:FEWEST]) / FEWEST
        if state.taken == steps or (state.taken > FEWEST and smoothed(losses, SMOOTHING) > TOO_HIGH * began):
            raise _Enough

    climb = (highest / lowest) ** (1 / (steps - 1))
    epochs = math.ceil(steps / steps_per_epoch(len(data.train), train.batch))
    plan = dataclasses.replace(
        prepared.plan, epochs=epochs, objective=record, factor=lambda step: climb**step, averager=None, accumulate=1
    )
    with contextlib.suppress(_Enough), torch.random.fork_rng(devices=[]):
        fit(network, prepared.split, prepared.run.optimiser, plan, lambda *told: None, saved=stop)
    return from_losses([lowest * climb**step for step in range(len(losses))], losses)


def from_losses(rates: Sequence[float], losses: Sequence[float]) -> RateTest:
    """The test of some rates and the loss each step began with; what comes after a loss that is not finite is left out.

    Raises CompressError where that leaves fewer than ten, and where the loss is lowest among these.
    """
    finite = [step for step, loss in enumerate(losses) if math.isfinite(loss)]
    if len(finite) < FEWEST:
        raise CompressError(
            f"the rate test ended after {len(finite)} steps, too few to read: the loss was not finite at a rate of "
            f"{rates[len(finite)]:.2g}. Check the weights the test starts from."
        )
    smooth = tuple(smoothed(losses[: step + 1], SMOOTHING) for step in finite)
    if smooth.index(min(smooth)) < FEWEST:
        raise CompressError(
            f"the loss never fell below the {min(smooth):.2g} it began with, so no rate is better than another: the network has "
            "learnt what these images can teach it. Give --rate yourself, such as a tenth of what it was trained with."
        )
    return RateTest(tuple(rates[step] for step in finite), smooth)


def plot(test: RateTest, path: Path) -> None:
    """Draw the loss over the rate, with the suggestion, as an SVG; the same test gives the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "compress", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(test.rates, test.losses)
        axes.axvline(test.suggestion, linestyle="--", label=f"suggested: {test.suggestion:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed", title="Learning-rate range test")
        axes.set_ylim(top=min(max(test.losses), 2 * test.losses[0]))
        axes.legend()
        with storage.writing(path) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})
