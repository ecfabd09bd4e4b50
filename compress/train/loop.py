"""The only training loop. It is given an objective, transforms, a rate, an averager and what to do after a step.

It knows none of them by name. Every random choice is a function of the seed and the number of the step, so
a run that goes on from its saved state ends in the same weights as one that was never stopped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compress.data.normalise import normalise
from compress.data.spec import Preprocessing
from compress.data.splits import Indices, Split
from compress.errors import CompressError
from compress.progress import Progress
from compress.train.objectives import Objective

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""uint8 images (N, C, H, W) and a source of chance -> augmented images of the same shape."""
Mix = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Normalised images and labels (N,) -> mixed images and labels, or targets (N, classes) that sum to one."""
AfterStep = Callable[[nn.Module, int], None]
"""Called with the network and the number of steps taken: masks, freezes, proximal steps."""
Validate = Callable[[nn.Module], float]
"""A network's score on images it does not learn from; higher is better."""


class Averager(Protocol):
    """A second set of weights that follows the first (torch.optim.swa_utils.AveragedModel is one)."""

    module: nn.Module

    def update_parameters(self, model: nn.Module) -> None:
        """Take the network's present weights into the average."""
        ...


@dataclass(frozen=True)
class Plan:
    """Everything the loop is given besides the network, the images and the optimiser.

    `batch` is what one process takes at a step, in `accumulate` pieces. `factor` maps a step to a factor of
    each learning rate. `autocast` is a torch type to compute in, or None for FP32. `reduce` is called when a
    step's gradients are complete, before `clip` sees them: processes average them there. `memory_format` is how
    images lie in memory, which the network's activations follow. With `patience`,
    training stops after that many epochs in which the validation score, as `judge` makes it of the scores so
    far, did not rise by more than `improvement`.
    """

    epochs: int
    batch: int
    seed: int
    device: str
    preprocessing: Preprocessing
    objective: Objective
    factor: Callable[[int], float]
    memory_format: torch.memory_format = torch.channels_last
    transforms: Sequence[Transform] = ()
    mix: Mix | None = None
    teacher: nn.Module | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None
    reduce: Callable[[nn.Module], None] | None = None
    clip: Callable[[nn.Module], None] | None = None
    autocast: torch.dtype | None = None
    accumulate: int = 1
    averager: Averager | None = None
    after_step: Sequence[AfterStep] = ()
    validate: Validate | None = None
    judge: Callable[[Sequence[float]], float] = lambda scores: scores[-1]
    patience: int | None = None
    improvement: float = 0.0
    rank: int = 0
    world: int = 1


@dataclass
class State:
    """Where a run stands: steps taken, the curves so far, the sums of the epoch under way, the best weights yet.

    `scaler` is the state of the loss scaling that FP16 needs.
    """

    taken: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    best: dict[str, Tensor] | None = None
    best_epoch: int = 0
    best_score: float = -math.inf
    scaler: dict[str, Any] = field(default_factory=dict)


class Diverged(CompressError):
    """The loss, or the network itself, is no longer finite."""


@dataclass(frozen=True)
class Fit:
    """What came of a run: the weights to keep, which epoch they are of (from 1), and a number an epoch of each curve."""

    weights: dict[str, Tensor]
    epoch: int
    curves: dict[str, tuple[float, ...]]


Saved = Callable[[State], None]
"""Called after every step; keeps the state where it is due."""


def fit(
    network: nn.Module,
    split: Split,
    optimiser: Optimizer,
    plan: Plan,
    progress: Progress,
    state: State | None = None,
    saved: Saved | None = None,
) -> Fit:
    """Train `network` in place on `split`; the weights kept are the best validated ones with `patience`, else the last.

    `network` and `optimiser` hold what `state` was saved with. Raises Diverged when the loss or the network is no longer finite.
    """
    state = state or State()
    rates = [float(group.setdefault("initial_lr", group["lr"])) for group in optimiser.param_groups]
    per_epoch = steps_per_epoch(len(split), plan.batch * plan.world)
    scaler = torch.amp.GradScaler(torch.device(plan.device).type, enabled=plan.autocast is torch.float16)
    if state.scaler:
        scaler.load_state_dict(state.scaler)
    kept = plan.averager.module if plan.averager else network
    while state.taken < plan.epochs * per_epoch and not _patience_ended(state, plan):
        epoch = state.taken // per_epoch + 1
        network.train()
        for images, labels in split.batches(
            plan.batch, _order(len(split), epoch, per_epoch, state.taken % per_epoch, plan)
        ):
            scale = plan.factor(state.taken)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            loss, right = _step(network, images, labels, optimiser, scaler, plan, state.taken)
            state.taken, state.scaler = state.taken + 1, scaler.state_dict()
            if not math.isfinite(loss):
                raise _diverged(str(loss), epoch, state.taken, optimiser)
            for after in plan.after_step:
                after(network, state.taken)
            if plan.averager:
                plan.averager.update_parameters(network)
            state.sums = [state.sums[0] + loss * len(labels), state.sums[1] + right, state.sums[2] + len(labels)]
            total, hits, seen = state.sums
            live = f"epoch {epoch}/{plan.epochs} loss {total / seen:.3f} top-1 {100 * hits / seen:.1f} %"
            if state.taken % per_epoch == 0:
                _close_epoch(state, kept, plan, rates[0] * scale)
                if not finite(network):  # batch norms hide it from the loss: their statistics overflow first
                    raise _diverged("finite, but not the weights or statistics,", epoch, state.taken, optimiser)
            progress("train", state.taken, plan.epochs * per_epoch, live)
            if saved:
                saved(state)
    last = len(state.curves.get("train_loss", ()))
    weights, epoch = (state.best, state.best_epoch) if plan.patience is not None and state.best else (copy(kept), last)
    return Fit(weights, epoch, {name: tuple(values) for name, values in state.curves.items()})


def steps_per_epoch(images: int, batch: int) -> int:
    """Optimiser steps in an epoch: whole batches only, so that no batch norm sees a batch of a few images."""
    return max(1, images // batch)


def copy(network: nn.Module) -> dict[str, Tensor]:
    """The network's state as tensors of its own, on the CPU, in torch's usual memory order."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }


def finite(network: nn.Module) -> bool:
    """Whether every number of the network is one."""
    return all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())


def _order(images: int, epoch: int, per_epoch: int, done: int, plan: Plan) -> Indices:
    """The images this process still sees in this epoch; all processes together see each at most once."""
    order = np.random.default_rng([plan.seed, epoch]).permutation(images)[: per_epoch * plan.world * plan.batch]
    return order.reshape(-1, plan.world, plan.batch)[done:, plan.rank].reshape(-1)


def _step(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimiser: Optimizer,
    scaler: torch.amp.GradScaler,
    plan: Plan,
    number: int,
) -> tuple[float, float]:
    """One optimiser step; returns the mean loss and how many images were answered right."""
    chance = torch.Generator().manual_seed(((plan.seed * 1_000_003 + number) * 65_537 + plan.rank) % 2**63)
    torch.manual_seed(chance.initial_seed())  # what dropout in the network draws from
    for transform in plan.transforms:
        images = transform(images, chance)
    targets = labels
    images = normalise(images, plan.preprocessing)
    if plan.mix:
        images, targets = plan.mix(images, labels, chance)
    images = images.to(plan.device, memory_format=plan.memory_format)
    targets = targets.to(plan.device)
    total, right = 0.0, 0.0
    for piece, wanted in zip(images.chunk(plan.accumulate), targets.chunk(plan.accumulate), strict=True):
        share = len(piece) / len(images)
        with torch.autocast(torch.device(plan.device).type, dtype=plan.autocast, enabled=plan.autocast is not None):
            with torch.no_grad():
                answer = plan.teacher(piece) if plan.teacher else None
            logits = network(piece)
            loss = plan.objective(logits, answer, wanted)
        objective = loss + plan.penalty(network) if plan.penalty else loss
        scaler.scale(objective * share).backward()  # type: ignore[no-untyped-call]
        total += float(objective.detach()) * share
        truth = wanted if wanted.dim() == 1 else wanted.argmax(1)
        right += float((logits.detach().argmax(1) == truth).sum())
    if plan.reduce:
        plan.reduce(network)
    if plan.clip:
        scaler.unscale_(optimiser)
        plan.clip(network)
    scaler.step(optimiser)
    scaler.update()
    optimiser.zero_grad(set_to_none=True)
    return total, right


def _close_epoch(state: State, kept: nn.Module, plan: Plan, rate: float) -> None:
    """Add the epoch to the curves, validate, and remember the best weights."""
    total, right, seen = state.sums
    state.sums = [0.0, 0.0, 0.0]
    figures = {"train_loss": total / seen, "train_top1": 100 * right / seen, "rate": rate}
    if plan.validate:
        figures["validation_top1"] = plan.validate(kept)
    for name, value in figures.items():
        state.curves.setdefault(name, []).append(value)
    scores = state.curves.get("validation_top1", [])
    score = plan.judge(scores) if scores else -math.inf
    if plan.patience is not None and score > state.best_score + plan.improvement:
        state.best, state.best_epoch, state.best_score = copy(kept), len(state.curves["train_loss"]), score


def _patience_ended(state: State, plan: Plan) -> bool:
    return plan.patience is not None and len(state.curves.get("train_loss", ())) - state.best_epoch >= plan.patience


def _diverged(loss: str, epoch: int, taken: int, optimiser: Optimizer) -> Diverged:
    return Diverged(
        f"training diverged: the loss was {loss} in epoch {epoch}, at step {taken}, with a learning rate of "
        f"{optimiser.param_groups[0]['lr']:.2g}. Lower the rate (a third of it is a good start), lengthen the "
        "warm-up, or clip the gradients. The checkpoint given is unchanged."
    )
