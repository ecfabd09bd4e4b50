"""A network run some calls at a time over many batches of images, whose activations wait on disk in between."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from compress.storage import unwritable
from compress.trace import trace


class Playback:
    """A forward pass stopped between two calls, for each of several batches.

    The network's own tensors are read at each call, so a layer changed in place is heard from then on.
    """

    def __init__(self, network: nn.Module, input_shape: tuple[int, int, int], folder: Path) -> None:
        """Follow `network`, with `folder` to put activations in. Raises CompressError where torch.export cannot follow it."""
        self._traced = trace(network, input_shape)
        self._own = network.state_dict(keep_vars=True)
        self._folder = folder
        folder.mkdir()
        nodes = list(self._traced.graph.nodes)
        self.calls = [node for node in nodes if node.op == "call_function"]
        self._input = next(node.name for node in nodes if node.op == "placeholder")
        number = {node: number for number, node in enumerate(self.calls)}
        self._last = {node.name: max((number.get(user, -1) for user in node.users), default=-1) for node in nodes}
        self._at: list[int] = []
        self._waiting: list[dict[str, Any]] = []

    @property
    def batches(self) -> int:
        """How many batches were shown."""
        return len(self._at)

    def show(self, images: Tensor) -> None:
        """Take in a batch, at the start of its forward pass."""
        self._at.append(0)
        self._waiting.append({})
        self._put(self.batches - 1, {self._input: images})

    def play(self, batch: int, stop: int) -> dict[str, Any]:
        """Go on with a batch until just before call number `stop`; returns, by name, what is read from there on."""
        held = {name: _taken(value) for name, value in self._waiting[batch].items()}
        for place in range(self._at[batch], stop):
            call = self.calls[place]
            args, kwargs = fx.map_arg((call.args, call.kwargs), partial(self._value, held))
            held[call.name] = call.target(*args, **kwargs)
            held = {name: value for name, value in held.items() if self._last[name] > place or name == call.name}
        self._at[batch] = stop
        self._put(batch, held)
        return held

    def tensor(self, node: fx.Node) -> Tensor:
        """The parameter, buffer or constant that a node of the calls reads."""
        name = str(node.target)
        found: Tensor = self._own[name] if name in self._own else _attribute(self._traced, name)
        return found

    def _value(self, held: dict[str, Any], node: fx.Node) -> Any:
        return self.tensor(node) if node.op == "get_attr" else held[node.name]

    def _put(self, batch: int, held: dict[str, Any]) -> None:
        """Let tensors wait on disk, each in a file of its own, and whatever else there is in memory."""
        self._waiting[batch] = {
            name: _written(value, self._folder / f"{batch}-{name}.npy") if isinstance(value, Tensor) else value
            for name, value in held.items()
        }


def _written(value: Tensor, file: Path) -> Path:
    """Write a tensor; returns where. Raises ResourceError where the disk is full."""
    try:
        np.save(file, value.numpy())
    except OSError as error:
        raise unwritable(file, error) from error
    return file


def _taken(value: Any) -> Any:
    """What was put: a tensor out of its file, which is gone then."""
    if not isinstance(value, Path):
        return value
    found = torch.from_numpy(np.load(value))
    value.unlink()
    return found


def _attribute(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner
