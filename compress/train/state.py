"""A training run's state as a file: what a kill cannot take, and what the run goes on from, bit for bit.

One safetensors file beside the result, removed when the result is written. Random choices need no place in
it: they follow from the seed and the number of the step.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pydantic.dataclasses
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compress import document, storage
from compress.architecture import STRICT
from compress.errors import CompressError
from compress.networks.weights import load
from compress.train.loop import State, finite

KIND, FORMAT, SLOT = "compress training state", 1, "compress"


@dataclasses.dataclass(frozen=True)
class Run:
    """The objects whose tensors make up a run's state."""

    network: nn.Module
    optimiser: Optimizer
    averager: nn.Module | None = None


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Progressed:
    """The state's JSON: which run it belongs to, and the plain part of `State`.

    `settings` are everything that decides the run's result; another run's state is refused by them.
    """

    settings: dict[str, Any]
    taken: int
    curves: dict[str, list[float]]
    sums: list[float]
    best_epoch: int
    best_score: float | None
    scaler: dict[str, int | float]


def save(path: Path, settings: Mapping[str, Any], run: Run, state: State) -> None:
    """Write a run's state, whole or not at all."""
    from safetensors.torch import save as serialize

    tensors = {f"network.{name}": tensor for name, tensor in run.network.state_dict().items()}
    for index, values in run.optimiser.state_dict()["state"].items():
        tensors |= {
            f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items() if value is not None
        }
    if run.averager is not None:
        tensors |= {f"averager.{name}": tensor for name, tensor in run.averager.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in (state.best or {}).items()}
    score = state.best_score if state.best else None
    description = Progressed(
        dict(settings), state.taken, state.curves, state.sums, state.best_epoch, score, state.scaler
    )
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    storage.write_bytes(path, serialize(plain, metadata={SLOT: document.dumps(KIND, FORMAT, description)}))


def restore(path: Path, settings: Mapping[str, Any], run: Run) -> State:
    """Put a saved state back into `run`'s objects and return where it stood.

    Raises CompressError where the file is damaged, or belongs to a run with other settings, which it lists.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(SLOT, "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # safe_open is no dict
    except (SafetensorError, OSError) as error:
        raise CompressError(
            f"the training state {path} is damaged: {error}. Remove it to start again from the beginning."
        ) from error
    found = document.loads(text, KIND, FORMAT, Progressed, f"the training state {path}")
    asked = json.loads(json.dumps(dict(settings)))
    if found.settings != asked:
        names = sorted(
            name for name in found.settings.keys() | asked.keys() if found.settings.get(name) != asked.get(name)
        )
        listed = "; ".join(f"{name} was {found.settings.get(name)} and is {asked.get(name)}" for name in names)
        raise CompressError(
            f"{path} was left by another run: {listed}. Give the same settings to go on with it, or remove it to start again."
        )
    load(run.network, _under(tensors, "network."), strict=True)
    if run.averager is not None:
        load(run.averager, _under(tensors, "averager."), strict=True)
    values: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(tensors, "optimiser.").items():
        index, _, key = name.partition(".")
        values.setdefault(int(index), {})[key] = tensor
    run.optimiser.load_state_dict({"state": values, "param_groups": run.optimiser.state_dict()["param_groups"]})
    best = _under(tensors, "best.") or None
    score = State().best_score if found.best_score is None else found.best_score
    return State(found.taken, found.curves, found.sums, best, found.best_epoch, score, found.scaler)


def keeper(path: Path, settings: Mapping[str, Any], run: Run, seconds: float) -> Callable[[State], None]:
    """A function for the loop that saves the state when `seconds` have passed since it was last saved.

    A network that is no longer finite is not saved over one that was.
    """
    last = time.monotonic()

    def keep(state: State) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds and finite(run.network):
            save(path, settings, run, state)
            last = time.monotonic()

    return keep


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
