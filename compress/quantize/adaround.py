"""Which way to round each weight, learned from what the layer has to compute.

https://arxiv.org/abs/2004.10568. Rounding every weight to the nearest integer is not what changes a layer's
outputs least. With w = s (floor(w / s) + h), h between 0 and 1 is learned for each weight,

    min over V of  E |W x - W~ x~|^2 + lambda sum (1 - |2 h(V) - 1|^beta),  h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)

where x~ is what reaches the layer when all before it is quantized. beta falls from 20 to 2, so that every h ends
at 0 or 1. The expectation is a quadratic form of the weights: with H = E[x~ x~^T] and T = E[(W x) x~^T] it is
tr(W~ H W~^T) - 2 tr(W~ T^T) and a constant. H and T are all that is kept of the images, however many there are;
the activation after the layer is left out of account.
"""

import math
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from compress.progress import Progress
from compress.quantize.lockstep import Visit, layers, visit
from compress.quantize.sequence import BIAS, KINDS, A, arguments, attribute
from compress.quantize.target import Integers

STRETCH, SHIFT = 1.2, -0.1
STRENGTH, RATE = 4.0, 0.1
FREE, SHARPEST, WIDEST = 0.2, 2.0, 20.0
"""beta: for this share of the iterations nothing is drawn to 0 or 1; then it falls from the widest to the sharpest."""
CHUNK = 2**24
"""Numbers of unfolded inputs at a time."""


@torch.no_grad()
def learned_rounding(
    quantized: fx.GraphModule,
    traced: fx.GraphModule,
    images: Tensor,
    weights: Integers,
    iterations: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """The integers of every quantized weight, by the weight's name; a weight of zero stays zero."""
    found: dict[str, Tensor] = {}
    total = len(layers(quantized, traced))
    for layer in visit(quantized, traced, images):
        weight = attribute(traced, arguments(layer.origin)[1]).detach()
        squares, products = moments(layer, traced)
        groups = len(squares)
        units = (weight / layer.scale.reshape(-1, *[1] * (weight.dim() - 1))).reshape(groups, -1, squares.shape[1])
        scale = layer.scale.reshape(groups, -1, 1)
        integers = round_for(units, scale, squares, products, weights, iterations).reshape(weight.shape)
        layer.put(1, integers * layer.scale.reshape(-1, *[1] * (weight.dim() - 1)))
        found[layer.weight] = integers.to(torch.int8)
        progress("adaround", len(found), total, layer.weight)
    return found


def round_for(
    units: Tensor, scale: Tensor, squares: Tensor, products: Tensor, weights: Integers, iterations: int
) -> Tensor:
    """The integers (groups, outputs, inputs) for weights in `units` of their `scale` (groups, outputs, 1).

    `squares` is H (groups, inputs, inputs), `products` T (groups, outputs, inputs).
    """
    low, high, floor = weights.low, weights.high, units.floor()
    rest = (units - floor).clamp(1e-4, 1 - 1e-4)
    nearest = units.round().clamp(low, high)
    noise = (nearest - units) * scale
    power = (noise @ squares * noise).sum() / units.numel()
    if not power > 0:
        return nearest
    kept = units == 0
    logits = torch.logit((rest - SHIFT) / STRETCH).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=RATE)
    for step in range(iterations):
        with torch.enable_grad():
            share = (logits.sigmoid() * STRETCH + SHIFT).clamp(0, 1).masked_fill(kept, 0)
            soft = (floor + share).clamp(low, high) * scale
            # The gradient of a quadratic form in one product instead of two: H is symmetric.
            loss = 2 * (soft * (soft.detach() @ squares - products)).sum() / power
            if step >= FREE * iterations:
                done = (step / iterations - FREE) / (1 - FREE)
                beta = SHARPEST + (WIDEST - SHARPEST) * (1 + math.cos(math.pi * done)) / 2
                loss = loss + STRENGTH * (1 - (2 * share - 1).abs() ** beta).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    learned = (floor + (logits.detach() >= 0)).masked_fill(kept, 0).clamp(low, high)
    # The rows of a quadratic form are independent: each takes what is better for it.
    errors = [
        ((found * scale) @ squares - 2 * products).mul(found * scale).sum(2, keepdim=True)
        for found in (learned, nearest)
    ]
    return torch.where(errors[0] <= errors[1], learned, nearest)


def moments(layer: Visit, traced: fx.GraphModule) -> tuple[Tensor, Tensor]:
    """H and T of a layer over all its images and places: (groups, inputs, inputs) and (groups, outputs, inputs)."""
    parts = arguments(layer.origin)
    weight, conv = attribute(traced, parts[1]), KINDS[layer.call.target] == "conv"
    plain = layer.exact
    if len(parts) > BIAS and isinstance(parts[BIAS], fx.Node):
        plain = plain - attribute(traced, parts[BIAS]).reshape(-1, *[1] * (plain.dim() - 2 if conv else 0))
    groups = layer.source.shape[1] // weight.shape[1] if conv else 1
    inputs, outputs = weight[0].numel(), len(weight) // groups
    squares, products = torch.zeros(groups, inputs, inputs), torch.zeros(groups, outputs, inputs)
    one = groups * inputs * layer.exact[0].numel() // len(weight)
    step, count = max(1, CHUNK // one), 0
    for start in range(0, len(layer.source), step):
        x, y = layer.source[start : start + step], plain[start : start + step]
        if conv:
            x = _unfold(layer.origin, x, weight.shape[2:]).transpose(0, 1).flatten(1)
            y = y.transpose(0, 1).flatten(1)
        else:
            x, y = x.reshape(-1, inputs).T, y.reshape(-1, outputs).T
        x, y = x.reshape(groups, inputs, -1), y.reshape(groups, outputs, -1)
        squares += x @ x.mT
        products += y @ x.mT
        count += x.shape[2]
    return squares / count, products / count


def _unfold(call: fx.Node, x: Tensor, kernel: torch.Size) -> Tensor:
    """The inputs of a convolution as it multiplies them: (N, channels * kernel, places)."""
    given: tuple[Any, ...] = (*call.args[3:6], *[None] * 3)
    stride, padding, dilation = (
        tuple(setting or (default,) * 2) for setting, default in zip(given, (1, 0, 1), strict=False)
    )
    if call.target is A.conv2d.padding:
        total = [d * (k - 1) if given[1] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        x = functional.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
        padding = (0, 0)
    return functional.unfold(x, tuple(kernel), dilation, padding, stride)
