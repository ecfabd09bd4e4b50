"""Channels that no one reads: what pruning has to equal before anything is adjusted."""

from collections.abc import Mapping

import torch
from torch import nn

from compress.prune.narrow import Lost, blocks_of, layout_of, twin


def mask(network: nn.Module, lost: Mapping[str, Lost]) -> nn.Module:
    """The network at its full size, its layers deaf to the input channels they lose: those weights are zero.

    It answers as `remove(network, lost)` does, up to the order in which numbers are added. Other tensors
    are shared with `network`, which is left as it is.
    """
    masked = twin(network)
    for name, (inputs, _) in lost.items():
        layer = masked.get_submodule(name)
        layout = layout_of(layer)
        axis = layout.axes["weight"][0] if layout else None
        # Where a layer works in blocks, what comes of a lost block is not heard further down.
        if axis is not None and inputs and blocks_of(layer) == 1:
            weight = layer.get_parameter("weight")
            silent = torch.as_tensor(inputs, device=weight.device)
            layer.register_parameter(
                "weight", nn.Parameter(weight.detach().index_fill(axis, silent, 0), weight.requires_grad)
            )
    return masked
