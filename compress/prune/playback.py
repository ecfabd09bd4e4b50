"""A network run some calls at a time over many batches of images, whose activations wait on disk in between."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
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
        self._numbers: list[dict[str, Any]] = []

    @property
    def batches(self) -> int:
        """How many batches were shown."""
        return len(self._at)

    def show(self, images: Tensor) -> None:
        """Take in a batch, at the start of its forward pass."""
        self._at.append(0)
        self._numbers.append({})
        self._put(self.batches - 1, {self._input: images})

    def play(self, batch: int, stop: int) -> dict[str, Any]:
        """Go on with a batch until just before call number `stop`; returns, by name, what is read from there on."""
        held: dict[str, Any] = load_file(self._file(batch)) | self._numbers[batch]
        self._file(batch).unlink()  # what was loaded may still be read from it, and must not be written over
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

    def _file(self, batch: int) -> Path:
        return self._folder / f"{batch}.safetensors"

    def _put(self, batch: int, held: dict[str, Any]) -> None:
        tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
        self._numbers[batch] = {name: value for name, value in held.items() if name not in tensors}
        copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        try:
            self._file(batch).write_bytes(save(copies))
        except OSError as error:
            raise unwritable(self._file(batch), error) from error


def _attribute(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner
