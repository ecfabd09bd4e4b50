"""Plain weights: reading a state dict without running anything, and matching it to a network."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress import storage
from compress.errors import CompressError, nearest

COUNTER = "num_batches_tracked"
ENVELOPES = ("state_dict", "model")
"""Keys under which training scripts keep the state dict in a larger file."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before every name."""
LISTED = 10


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in a `.safetensors` file, or in one that torch.save wrote (`.pth`, `.pt`), under their plain names.

    A file of torch.save is read with `weights_only=True`; one that holds more than tensors is refused with
    the list of what reading it would have run. Raises CompressError for anything that is no state dict.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in ENVELOPES:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        found = "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CompressError(
            f"{path} holds {found}, not a state dict. Save one with torch.save(network.state_dict(), {path.name!r})."
        )
    others = [f"{key} is {kind}" for key, value in content.items() if (kind := _not_plain(key, value))]
    if others:
        raise CompressError(
            f"{path} is no plain state dict: {_listed(others)}. "
            "Save only dense tensors, with torch.save(network.state_dict(), FILE)."
        )
    state = dict(content)
    while prefix := next((prefix for prefix in WRAPPERS if all(key.startswith(prefix) for key in state)), None):
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def match(state: Mapping[str, Tensor], network: nn.Module, what: str) -> dict[str, Tensor]:
    """The tensors of `state` in the order and types of `network`; `what` names the two in errors.

    Batch norm counters that are missing are zero. Raises CompressError listing every tensor that is
    missing, unexpected or of another shape, with the nearest names.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith(COUNTER)]
    unexpected = [key for key in state if key not in own]
    unlike = [key for key in own if key in state and not _alike(state[key], own[key])]
    if missing or unexpected or unlike:
        found = [
            ("missing", [_with_nearest(key, unexpected) for key in missing[:LISTED]], len(missing)),
            ("unexpected", [_with_nearest(key, missing) for key in unexpected[:LISTED]], len(unexpected)),
            (
                "unlike",
                [f"{key} is {_shape(state[key])} and not {_shape(own[key])}" for key in unlike[:LISTED]],
                len(unlike),
            ),
        ]
        told = "; ".join(f"{count} {kind}: {_listed(names, count)}" for kind, names, count in found if count)
        raise CompressError(
            f"the weights do not fit {what}. {told}. Check the name of the network and the number of classes."
        )
    return {
        key: state[key].detach().to(tensor.dtype).clone() if key in state else tensor.clone()
        for key, tensor in own.items()
    }


def load(network: nn.Module, weights: Mapping[str, Tensor], *, strict: bool = False) -> None:
    """Copy `weights` into `network`, in place; names only one of the two has are passed over, unless `strict`.

    Some networks (torchvision's MNASNet) refuse a state dict that does not say which version wrote it, and
    ours are always of the running one: that is added here.
    """
    state = OrderedDict(weights)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, strict=strict)


def share(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Have the parameters of `network` lie in the memory of `weights`, which has them all; buffers are copied."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        parameter.data = weights[name].to(parameter.dtype)
    load(network, {name: tensor for name, tensor in weights.items() if name not in parameters})


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError as error:
        raise storage.unreadable(path, "weights", error) from error
    except SafetensorError as error:
        raise CompressError(
            f"{path} is not a safetensors file, or was cut short: {error}. Copy or make it again."
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise storage.unreadable(path, "weights", error) from error
    try:
        with stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises errors of many unrelated types for bytes it cannot take
        run = _would_run(path)
        if run:
            raise CompressError(
                f"{path} holds more than tensors: reading it would run {_listed(sorted(run))}. Files that run code are "
                "never opened. Where you trust it, save its weights with torch.save(network.state_dict(), FILE)."
            ) from error
        raise CompressError(
            f"{path} is not a file of weights that torch can read safely, or was cut short. "
            "Give a state dict written by torch.save, or a .safetensors file."
        ) from error


def _would_run(path: Path) -> list[str]:
    """What unpickling a file would import and call; empty where torch cannot list it (files from before torch 1.6)."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file too broken to be listed has nothing to list
        return []


def _not_plain(key: object, value: object) -> str | None:
    """What an entry is that does not belong in a plain state dict, or None where it does."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized:
        return "a sparse or quantized tensor"
    return None if isinstance(key, str) else "a tensor without a name"


def _alike(theirs: Tensor, ours: Tensor) -> bool:
    return theirs.shape == ours.shape and theirs.is_floating_point() == ours.is_floating_point()


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _with_nearest(key: str, others: list[str]) -> str:
    near = nearest(key, others, 1)
    return f"{key} (nearest: {near[0]})" if near else key


def _listed(names: list[str], count: int | None = None) -> str:
    """The first ten of some names and the number of the others."""
    count = len(names) if count is None else count
    more = f", and {count - LISTED} more" if count > LISTED else ""
    return ", ".join(names[:LISTED]) + more
