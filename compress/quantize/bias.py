"""Integer biases: added to the sum of integer products, so on the scale of those products.

With x = s_x (q_x - z_x) and w = s_w q_w (one s_w for each output channel), a layer computes

    y = s_x s_w (sum (q_x - z_x) q_w + q_b),    q_b = round(b / (s_x s_w))

(Jacob et al., https://arxiv.org/abs/1712.05877, section 2.2.) A channel whose weights are almost zero has
an s_w so small that q_b leaves int32, or the sum does; a floor on s_w keeps both inside. It costs such a
channel resolution in weights that hardly count: its bias is then at least 2^30 times larger than a step.
"""

import torch
from torch import Tensor

LARGEST = 2**30
"""Bound on |q_b|: the other half of int32 is for the sum, which 33,000 products of 8 bits cannot fill."""


def weight_floor(bias: Tensor, input_scale: float | Tensor) -> Tensor:
    """The smallest weight scales (outputs,) for which the integer bias stays within LARGEST."""
    return (bias.double().abs() / (input_scale * LARGEST)).to(torch.float32)


def quantize_bias(bias: Tensor, input_scale: float, weight_scale: Tensor) -> tuple[Tensor, Tensor]:
    """The int32 bias (outputs,) and its scale; raises OverflowError where the weight scales are under their floor."""
    scale = weight_scale * input_scale
    integers = (bias.double() / scale.double()).round()
    # The scales are float32, and so is the floor they were lifted to: a few units in the last place over.
    if not bool((integers.abs() <= LARGEST * (1 + 1e-6)).all()):
        raise OverflowError("an integer bias leaves int32")
    return integers.to(torch.int32), scale
