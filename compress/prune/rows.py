"""From a layer's activations to the rows of a linear problem: what it reads, what it answers, and its weights as a matrix."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.prune.least_squares import Moments
from compress.prune.narrow import blocks_of

POSITIONS = 64
"""How many places of each image become rows; neighbours say much the same."""
LARGEST = 6000
"""The most inputs of a layer that is solved for: their products are the square of it in numbers of 8 bytes."""


def unsolvable(layer: nn.Module) -> str | None:
    """Why a layer's weights cannot be solved for, or None where they can."""
    if not isinstance(layer, nn.Linear) and not (isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros"):
        return "is no linear layer or 2-d convolution padded with zeros"
    inputs = layer.weight[0].numel()
    return f"reads {inputs} values at once, more than {LARGEST}" if inputs > LARGEST else None


def rows(layer: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Patches (blocks, rows, n), a one at the end of each, and what should be answered to them (blocks, rows, m).

    Takes up to `POSITIONS` places of each image, drawn by `generator`, the same ones in all images of a batch.
    """
    if isinstance(layer, nn.Conv2d):
        x, y = _patches(layer, x).mT, y.flatten(2).mT
    x, y = (side.reshape(len(side), -1, side.shape[-1]) for side in (x, y))
    places = torch.randperm(y.shape[1], generator=generator)[:POSITIONS]
    blocks = blocks_of(layer)
    x, y = (side[:, places].reshape(-1, blocks, side.shape[-1] // blocks).transpose(0, 1) for side in (x, y))
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2), y


def empty_moments(layer: nn.Module) -> Moments:
    """Empty moments of the size of a layer."""
    return Moments.empty(*matrix(layer).shape)


def matrix(layer: nn.Module) -> Tensor:
    """A layer's weights (blocks, n, m) in float64, its bias, or zero, in the last row."""
    weight, bias, blocks = layer.get_parameter("weight").detach(), getattr(layer, "bias", None), blocks_of(layer)
    held = weight.reshape(blocks, len(weight) // blocks, -1).mT
    last = torch.zeros_like(held[:, :1]) if bias is None else bias.detach().reshape(blocks, 1, -1)
    return torch.cat([held, last], 1).double()


def assign(layer: nn.Module, weights: Tensor) -> Tensor:
    """Write a matrix (blocks, n, m) back into a layer's weights, in place; returns its last row (outputs,), the bias."""
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        weight.copy_(weights[:, :-1].mT.reshape(weight.shape))
    return weights[:, -1].flatten().to(weight)


def _patches(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C * kernel, positions), whatever the padding."""
    extents = [dilation * (kernel - 1) for dilation, kernel in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding == "same":
        sides = [(extent // 2, extent - extent // 2) for extent in extents]
    elif isinstance(layer.padding, str):
        sides = [(0, 0)] * 2
    else:
        sides = [(int(pad), int(pad)) for pad in layer.padding]
    padded = F.pad(x, (*sides[1], *sides[0]))
    return F.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride)
