"""What weights are held to after every step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.prune.narrow import layout_of
from compress.train.loop import AfterStep


def max_norm(longest: float) -> AfterStep:
    """Scale every unit that learns and whose incoming weights are longer than `longest` back to that length.

    w_i <- w_i min(1, longest / |w_i|) for each output i of each convolution and linear layer.
    (Srivastava et al., https://jmlr.org/papers/v15/srivastava14a.html, section 5.1.)
    """

    @torch.no_grad()
    def after(network: nn.Module, taken: int) -> None:
        for layer in network.modules():
            layout, weight = layout_of(layer), getattr(layer, "weight", None)
            if layout is not None and isinstance(weight, Tensor) and weight.dim() > 1 and weight.requires_grad:
                outputs = layout.axes["weight"][1]
                assert outputs is not None
                weight.copy_(torch.renorm(weight, 2, outputs, longest))

    return after


def keep_zeros(network: nn.Module, layers: Sequence[str]) -> AfterStep:
    """Put back to exactly zero, after every step, each weight of `layers` that is zero now: masks that hold."""
    zeros = {name: network.get_parameter(f"{name}.weight") == 0 for name in layers}

    @torch.no_grad()
    def after(network: nn.Module, taken: int) -> None:
        for name, places in zeros.items():
            network.get_parameter(f"{name}.weight").masked_fill_(places, 0)

    return after
