"""A network as one file: architecture, weights and history, that no one has to trust.

The file is safetensors; one JSON document in its metadata slot says what the network is and how it got
there. Reading it runs no code. Only `architecture` and the tensors are needed to rebuild the network;
`history` explains, and nothing reads it to load.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic.dataclasses

from compress import document, storage
from compress.architecture import STRICT, Architecture
from compress.data.spec import DatasetSpec
from compress.errors import CompressError, Refusal

if TYPE_CHECKING:
    from torch import Tensor

KIND, FORMAT = "compress checkpoint", 2
SLOT = "compress"
HIGHEST_HEADER = 100_000_000
"""Longest header safetensors itself accepts, in bytes."""

TrainedOn = Literal["train", "all"]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Record:
    """One step of a history: its settings, its seed, the fingerprint it started from, and what it had to say.

    `figures` are series a step measured on the way (a loss an epoch); `refusals` the layers it left alone.
    """

    step: str
    settings: dict[str, Any]
    seed: int
    parent: str | None
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    figures: dict[str, tuple[float, ...]] = pydantic.Field(default_factory=dict)


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Description:
    """The JSON document of a checkpoint: everything but the tensors.

    `trained_on` says whether the weights have seen the validation split ("all") or not ("train").
    """

    architecture: Architecture
    dataset: DatasetSpec | None
    trained_on: TrainedOn
    history: tuple[Record, ...]


@dataclass(frozen=True)
class Header:
    """What a checkpoint's file says before its weights are read: the description, and shape and type of each tensor."""

    description: Description
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    size_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights and its history. `weights` is never edited in place."""

    architecture: Architecture
    weights: "Mapping[str, Tensor]" = field(repr=False)
    dataset: DatasetSpec | None = None
    trained_on: TrainedOn = "all"
    history: tuple[Record, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the architecture and every tensor: the same network has the same fingerprint on any machine."""
        import torch

        digest = hashlib.sha256(json.dumps(document.plain(self.architecture), sort_keys=True).encode())
        for name in sorted(self.weights):
            tensor = self.weights[name].detach().cpu().contiguous()
            digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return "sha256:" + digest.hexdigest()

    @property
    def spec(self) -> DatasetSpec:
        """The data the network was made for; raises CompressError where it was imported without."""
        if self.dataset is None:
            raise CompressError("this checkpoint says nothing of its data. Import it again with --data NAME.")
        return self.dataset


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all; the same checkpoint gives the same bytes."""
    from safetensors.torch import save as serialize

    description = Description(checkpoint.architecture, checkpoint.dataset, checkpoint.trained_on, checkpoint.history)
    tensors = apart({name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()})
    text = document.dumps(KIND, _oldest(checkpoint.architecture), description)
    storage.write_bytes(path, serialize(tensors, metadata={SLOT: text}))


def apart(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The same tensors, of which no two lie in the same memory: safetensors has no word for a shared one."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return found


def _oldest(architecture: Architecture) -> int:
    """The first format that can say this architecture: 2 has removed blocks, and networks on their way to integers."""
    return 2 if architecture.removed or architecture.prepared else 1


def header(path: Path) -> Header:
    """Read what a checkpoint says of itself, without its weights and without torch.

    Raises CompressError for a file that is no checkpoint, was cut short, or is of a newer format.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(length) if 2 <= length <= min(HIGHEST_HEADER, size - 8) else b""
    except OSError as error:
        raise storage.unreadable(path, "checkpoint", error) from error
    try:
        content = json.loads(text)
        tensors = {
            name: (str(entry["dtype"]), tuple(int(extent) for extent in entry["shape"]))
            for name, entry in content.items()
            if name != "__metadata__"
        }
        end = max(
            (int(entry["data_offsets"][1]) for name, entry in content.items() if name != "__metadata__"), default=0
        )
        metadata = content.get("__metadata__") or {}
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise CompressError(f"{path} is not a checkpoint of compress. {_advice(path)}") from error
    if size != 8 + length + end:
        raise CompressError(
            f"{path} is damaged: its header announces {8 + length + end} bytes and it has {size}. "
            "It was cut short or changed; copy or make it again."
        )
    if not isinstance(metadata, dict) or not isinstance(metadata.get(SLOT), str):
        raise CompressError(
            f"{path} holds plain weights, not a checkpoint. Make one of it with: compress import {path.name} --network NAME --data DATA -o base.safetensors"
        )
    return Header(document.loads(metadata[SLOT], KIND, FORMAT, Description, f"the checkpoint {path}"), tensors, size)


def load(path: Path | str) -> Checkpoint:
    """Read a checkpoint; raises CompressError for a file that is none, is damaged, or holds NaN or infinity."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    description = header(path).description
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CompressError(f"{path} is damaged: {error}. Copy or make it again.") from error
    require_finite(weights, str(path))
    return Checkpoint(
        description.architecture, weights, description.dataset, description.trained_on, description.history
    )


def require_finite(weights: "Mapping[str, Tensor]", where: str) -> None:
    """Raise CompressError where a tensor holds NaN or infinity, naming the first few."""
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise CompressError(
            f"{where} holds NaN or infinity in {', '.join(broken[:5])}{' and others' if len(broken) > 5 else ''}. "
            "A network with such weights answers nothing; go back to the last good checkpoint."
        )


def _advice(path: Path) -> str:
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return f"It looks like weights saved by torch: compress import {path.name} --network NAME --data DATA -o base.safetensors"
    if path.suffix == ".onnx":
        return "It looks like an ONNX file; this command works on a checkpoint."
    return "Give a .safetensors file that compress wrote, or make one with: compress import"
