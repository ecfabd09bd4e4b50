"""Biases that give every layer back the mean that rounding took from its outputs."""

import torch
from torch import Tensor, fx

from compress.quantize.bias import LARGEST, quantize_bias
from compress.quantize.graph import dequantized
from compress.quantize.lockstep import Visit, per_channel, visit
from compress.quantize.sequence import BIAS, arguments, attribute


@torch.no_grad()
def corrected_biases(
    quantized: fx.GraphModule, traced: fx.GraphModule, images: Tensor
) -> tuple[dict[str, Tensor], list[str]]:
    """The float biases (outputs,) by name, and the weights of layers that have none of their own to correct.

    b' = b + E[y - y_q], the mean of what a float layer computes less that of the quantized one, over images and
    places; layer after layer, the ones before being corrected already. (https://arxiv.org/abs/1906.04721, section
    4.2, the shift measured instead of derived.)
    """
    biases: dict[str, Tensor] = {}
    without: list[str] = []
    for layer in visit(quantized, traced, images):
        if layer.bias is None:
            without.append(layer.weight)
            continue
        shift = per_channel(layer.call, layer.exact).mean(1) - per_channel(layer.call, layer.compute()).mean(1)
        biases[layer.bias] = _hold(layer, quantized, attribute(traced, arguments(layer.origin)[BIAS]) + shift)
    return biases, without


def _hold(layer: Visit, quantized: fx.GraphModule, bias: Tensor) -> Tensor:
    """Have the layer read this bias; where that is an integer, no larger than one can be."""
    held = arguments(layer.call)[BIAS]
    if not dequantized(held):
        layer.put(BIAS, bias)
        return bias
    scale = arguments(layer.call)[0].args[1]
    largest = layer.scale.double() * scale * LARGEST
    bias = torch.minimum(torch.maximum(bias.double(), -largest), largest).float()
    integers, unit = quantize_bias(bias, scale, layer.scale)
    layer.put(BIAS, integers * unit)
    return bias
