"""The algebra of folding a batch norm into the layer before it.

A layer computes y = W x + b, one row of W and one element of b for each output channel; the batch norm
after it, in inference, z = gamma (y - mean) / sqrt(variance + eps) + beta. With

    s  = gamma / sqrt(variance + eps)

the two are one layer, W' = s W (row by row) and b' = s (b - mean) + beta.
(Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", https://arxiv.org/abs/1712.05877, section 3.2.)
"""

from torch import Tensor


def absorb(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """The weight and bias of one layer that does what the layer and its batch norm did.

    `weight` is (outputs, ...), every other tensor (outputs,). Computed in float64, so that the result is
    within half a unit in the last place of the exact one; returned in the type of `weight`.
    """
    s = (variance.double() + eps).rsqrt()
    if gamma is not None:
        s = s * gamma.double()
    shift = -mean.double() if bias is None else bias.double() - mean.double()
    folded_bias = s * shift if beta is None else s * shift + beta.double()
    folded_weight = weight.double() * s.reshape(-1, *[1] * (weight.dim() - 1))
    return folded_weight.to(weight.dtype), folded_bias.to(weight.dtype)
