"""Channels that no one reads: what pruning has to equal before anything is adjusted."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compress.prune.channels import axis_of
from compress.prune.narrow import Lost, blocks_of, layout_of, twin


def mask(network: nn.Module, lost: Mapping[str, Lost]) -> nn.Module:
    """The network at its full size, its layers deaf to the input channels they lose: they hear zeros there.

    It answers as `remove(network, lost)` does, up to the order in which numbers are added. All tensors
    are shared with `network`, which is left as it is.
    """
    masked = twin(network)
    for name, (inputs, _) in lost.items():
        layer = masked.get_submodule(name)
        layout = layout_of(layer)
        # Where a layer works in blocks, what comes of a lost block is not heard further down.
        if layout and layout.axes["weight"][0] is not None and inputs and blocks_of(layer) == 1:
            layer.register_forward_pre_hook(partial(_silenced, list(inputs)), with_kwargs=True)
    return masked


def _silenced(lost: list[int], layer: nn.Module, args: Any, kwargs: Any) -> Any:
    def silent(heard: Tensor) -> Tensor:
        return heard.index_fill(axis_of(layer, heard), torch.tensor(lost, device=heard.device), 0)

    return tree_map_only(Tensor, silent, (args, kwargs))
