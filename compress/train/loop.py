"""The only training loop. It knows an objective, batch transforms, a rate and what to do after a step, none by name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compress.data.normalise import normalise
from compress.data.splits import Split
from compress.data.spec import Preprocessing
from compress.errors import CompressError
from compress.progress import Progress
from compress.train.objectives import Objective

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""uint8 images (N, C, H, W) and a source of chance -> augmented images of the same shape."""
AfterStep = Callable[[nn.Module, int], None]
"""Called with the network and the number of steps taken: masks, freezes."""


@dataclass(frozen=True)
class Plan:
    """Everything the loop is given. `factor` maps an optimiser step to a factor of the learning rate.

    `autocast` is a torch type to compute in, or None for FP32. `validate` scores the network in per cent;
    with `patience`, training stops after that many epochs without a better score.
    """

    epochs: int
    batch: int
    seed: int
    device: str
    preprocessing: Preprocessing
    objective: Objective
    factor: Callable[[int], float]
    transforms: Sequence[Transform] = ()
    teacher: nn.Module | None = None
    autocast: torch.dtype | None = None
    after_step: Sequence[AfterStep] = ()
    validate: Callable[[nn.Module], float] | None = None
    patience: int | None = None
    clip: float | None = None


@dataclass(frozen=True)
class Fit:
    """What came of a run: the weights to keep, which epoch they are of (from 1), and a number an epoch of each curve."""

    weights: dict[str, Tensor]
    epoch: int
    curves: dict[str, tuple[float, ...]]


def fit(network: nn.Module, split: Split, optimiser: Optimizer, plan: Plan, progress: Progress) -> Fit:
    """Train `network` in place on `split`; the weights kept are the best validated ones with `patience`, else the last.

    The order of the images and every random choice follow from the plan's seed and the epoch's number.
    Raises CompressError when the loss is no longer finite.
    """
    curves: dict[str, list[float]] = {"train_loss": [], "train_top1": [], "rate": []}
    rates = [float(group["lr"]) for group in optimiser.param_groups]
    per_epoch = steps_per_epoch(len(split), plan.batch)
    network.to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    best, best_epoch, best_score = _copy(network), 0, -math.inf
    taken = 0
    for epoch in range(1, plan.epochs + 1):
        network.train()
        order = np.random.default_rng([plan.seed, epoch]).permutation(len(split))[: per_epoch * plan.batch]
        chance = torch.Generator().manual_seed(plan.seed * 1_000_003 + epoch)
        total, right, seen = 0.0, 0, 0
        for images, labels in split.batches(plan.batch, order):
            scale = plan.factor(taken)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            for transform in plan.transforms:
                images = transform(images, chance)
            loss, logits = _step(network, normalise(images, plan.preprocessing), labels, optimiser, plan)
            taken += 1
            for after in plan.after_step:
                after(network, taken)
            if not math.isfinite(loss):
                raise CompressError(
                    f"training diverged: the loss was {loss} in epoch {epoch}, after {taken} steps at a learning rate of "
                    f"{optimiser.param_groups[0]['lr']:.2g}. Lower the learning rate (a third of it is a good start), "
                    "lengthen the warm-up, or clip the gradients. The checkpoint given is unchanged."
                )
            total, seen = total + loss * len(labels), seen + len(labels)
            right += int((logits.argmax(1).cpu() == labels).sum())
            progress(
                "train",
                taken,
                plan.epochs * per_epoch,
                f"epoch {epoch}/{plan.epochs} loss {total / seen:.3f} top-1 {100 * right / seen:.1f} %",
            )
        curves["train_loss"].append(total / seen)
        curves["train_top1"].append(100 * right / seen)
        curves["rate"].append(rates[0] * plan.factor(taken - 1))
        if plan.validate:
            score = plan.validate(network)
            curves.setdefault("validation_top1", []).append(score)
            if score > best_score:
                best, best_epoch, best_score = _copy(network), epoch, score
        if plan.patience is not None and epoch - best_epoch >= plan.patience:
            break
    if plan.patience is None:
        best, best_epoch = _copy(network), len(curves["train_loss"])
    return Fit(best, best_epoch, {name: tuple(values) for name, values in curves.items()})


def steps_per_epoch(images: int, batch: int) -> int:
    """Optimiser steps in an epoch: whole batches only, so that no batch norm sees a batch of a few images."""
    return max(1, images // batch)


def _step(network: nn.Module, images: Tensor, labels: Tensor, optimiser: Optimizer, plan: Plan) -> tuple[float, Tensor]:
    images = images.to(plan.device, memory_format=torch.channels_last)
    labels = labels.to(plan.device)
    with torch.autocast(torch.device(plan.device).type, dtype=plan.autocast, enabled=plan.autocast is not None):
        answer = None
        if plan.teacher is not None:
            with torch.no_grad():
                answer = plan.teacher(images)
        logits = network(images)
        loss = plan.objective(logits, answer, labels)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if plan.clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), plan.clip)
    optimiser.step()
    return float(loss.detach()), logits.detach()


def _copy(network: nn.Module) -> dict[str, Tensor]:
    """The network's state as tensors of its own, on the CPU, in torch's usual memory order."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
