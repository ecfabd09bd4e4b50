"""Training a network as some settings say: what pruning, quantization-aware training and distillation share."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compress.data.splits import LearningData
from compress.errors import ResourceError
from compress.pipeline import Resources
from compress.progress import silent
from compress.train import distributed
from compress.train.loop import AfterStep, Diverged, Fit, Saved, State, copy, fit
from compress.train.plan import Prepared, prepare
from compress.train.state import keeper, restore, save

if TYPE_CHECKING:
    from compress.train.step import Train


def learn(
    train: "Train",
    network: nn.Module,
    data: LearningData,
    resources: Resources,
    identity: Mapping[str, Any],
    *,
    teacher: nn.Module | None = None,
    masked: Sequence[str] = (),
    validates: bool = True,
    after_step: Sequence[AfterStep] = (),
) -> Fit:
    """Train `network`, in place, as `train` says; with `resources.partial`, go on from the state found there and keep it.

    `identity` is what decides the result besides the settings, such as the fingerprint of the weights: a state of
    another identity is refused. Zeros in the layers `masked` stay zero; `validates` says whether the validation
    split may be looked at; `after_step` is called after every step, and once before the first one this call takes.
    Raises Diverged where the loss is no longer finite, with `network` as it was last kept if it was, and ResourceError where
    memory does not suffice or another process has died.
    """
    place = distributed.join(resources.device)
    if teacher is not None:
        teacher.to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepared = prepare(
        train,
        network,
        data,
        place,
        resources.seed,
        teacher=teacher,
        masked=masked,
        validates=validates,
        after_step=after_step,
    )
    settings = {**train.model_dump(mode="json"), "seed": resources.seed, "processes": place.world, **identity}
    state = _begin(prepared, resources.partial, settings, place)
    for after in prepared.ahead:
        after(network, state.taken)
    saved = _listeners(train, prepared, resources.partial, settings, place)
    gpus = [place.device] if place.device.startswith("cuda") else []
    try:
        with torch.random.fork_rng(devices=gpus):
            result = fit(
                network,
                prepared.split,
                prepared.run.optimiser,
                prepared.plan,
                resources.progress if place.rank == 0 else silent,
                state,
                saved,
            )
    except Diverged:
        if resources.partial is not None and not restore(resources.partial, settings, prepared.run).taken:
            resources.partial.unlink()
        raise
    except (RuntimeError, MemoryError) as error:
        if not _is_memory(error):
            raise
        raise _out_of_memory(train, place, error) from error
    if train.patience is not None and not train.restore_best:
        kept = prepared.plan.averager.module if prepared.plan.averager else network
        result = replace(result, weights=copy(kept), epoch=len(result.curves["train_loss"]))
    return result


def _begin(prepared: Prepared, partial: Path | None, settings: Mapping[str, Any], place: distributed.Place) -> State:
    """Where the run stands: as kept by an earlier start, else at its beginning, which is kept to see that it can be."""
    if partial is None:
        return State()
    found = partial.exists()
    distributed.wait(place)
    if found:
        return restore(partial, settings, prepared.run)
    if place.rank == 0:
        save(partial, settings, prepared.run, State())
    return State()


def _listeners(
    train: "Train", prepared: Prepared, partial: Path | None, settings: Mapping[str, Any], place: distributed.Place
) -> Saved:
    """What is told of every step; only the first process writes."""
    listeners: list[Saved] = []
    if place.rank == 0 and partial is not None:
        listeners.append(keeper(partial, settings, prepared.run, train.save_minutes * 60))
    if place.rank == 0 and train.tensorboard is not None:
        from compress.train.scalars import scalars

        listeners.append(scalars(Path(train.tensorboard)))

    def tell(state: State) -> None:
        for listener in listeners:
            listener(state)

    return tell


def _is_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _out_of_memory(train: "Train", place: distributed.Place, error: Exception) -> ResourceError:
    pieces = f" in {train.accumulate} pieces" if train.accumulate > 1 else ""
    return ResourceError(
        f"out of memory on {place.device} with a batch of {train.batch} images{pieces}: {str(error).splitlines()[0]}. "
        f"Set --accumulate {2 * train.accumulate} (the same steps in smaller pieces), --checkpointing, "
        f"--precision bf16, or a --batch below {train.batch}."
    )
