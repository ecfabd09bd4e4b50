"""How many of a network's weights are zero: what masks leave in place, and what rounding to integers adds."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

ODD = 8
"""The half byte at the end of an odd count of four-bit weights, which stands for none."""
ENDINGS = (".weight.integer", ".weight")
"""How the weights of a layer are called in a checkpoint: quantized, or in floating point."""


def weight_of(names: Iterable[str], layer: str) -> str | None:
    """The tensor that holds a layer's weights; None where it has none."""
    known = set(names)
    return next((layer + ending for ending in ENDINGS if layer + ending in known), None)


def zeros(tensor: Any) -> float:
    """The share of a tensor's numbers that are zero, 0 to 1; a torch tensor or an array."""
    return _zeros(tensor) / max(1, _count(tensor))


def sparsity(weights: Mapping[str, Any]) -> float:
    """Per cent of the weights of convolutions and linear layers that are zero, 0 to 100.

    These are the weights of two axes and more: biases and the scales of batch norms do not count.
    """
    counted = [tensor for name, tensor in weights.items() if name.endswith(ENDINGS) and len(tensor.shape) >= 2]
    return 100 * sum(map(_zeros, counted)) / max(1, sum(map(_count, counted)))


def _zeros(tensor: Any) -> int:
    return sum(int((part == 0).sum()) for part in _parts(tensor))


def _count(tensor: Any) -> int:
    whole = math.prod(map(int, tensor.shape))
    return 2 * whole - int((_parts(tensor)[1] == ODD).sum()) if _packed(tensor) else whole


def _parts(tensor: Any) -> tuple[Any, ...]:
    """The numbers in a tensor; weights of four bits, the only bytes without a sign, lie two in each."""
    return (tensor & 15, tensor >> 4) if _packed(tensor) else (tensor,)


def _packed(tensor: Any) -> bool:
    return str(tensor.dtype).endswith("uint8")
