"""How many of a network's weights are zero: what masks leave in place, and what rounding to integers adds."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

ENDINGS = (".weight.integer", ".weight")
"""How the weights of a layer are called in a checkpoint: quantized, or in floating point."""


def weight_of(names: Iterable[str], layer: str) -> str | None:
    """The tensor that holds a layer's weights; None where it has none."""
    known = set(names)
    return next((layer + ending for ending in ENDINGS if layer + ending in known), None)


def zeros(tensor: Any) -> float:
    """The share of a tensor's numbers that are zero, 0 to 1; a torch tensor or an array."""
    return int((tensor == 0).sum()) / max(1, _count(tensor))


def sparsity(weights: Mapping[str, Any]) -> float:
    """Per cent of the weights of convolutions and linear layers that are zero, 0 to 100.

    These are the weights of two axes and more: biases and the scales of batch norms do not count.
    """
    counted = [tensor for name, tensor in weights.items() if name.endswith(ENDINGS) and len(tensor.shape) >= 2]
    return 100 * sum(int((tensor == 0).sum()) for tensor in counted) / max(1, sum(map(_count, counted)))


def _count(tensor: Any) -> int:
    return math.prod(map(int, tensor.shape))
