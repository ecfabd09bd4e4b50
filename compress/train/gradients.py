"""What is done to gradients before the optimiser sees them."""

import torch
from torch import Tensor, nn


def clip_norm(network: nn.Module, longest: float) -> None:
    """Scale all gradients down together where their joint length is over `longest`.

    (Pascanu et al., https://arxiv.org/abs/1211.5063.)
    """
    nn.utils.clip_grad_norm_(network.parameters(), longest)


def clip_value(network: nn.Module, largest: float) -> None:
    """Cut every single number of the gradients to -`largest` ... `largest`."""
    nn.utils.clip_grad_value_(network.parameters(), largest)


def clip_adaptive(network: nn.Module, share: float, spared: str | None = None) -> None:
    """Scale each unit's gradient down to `share` of the length of its own weights, except in the layer `spared`.

    G_i <- G_i share max(|W_i|, 0.001) / |G_i| where |G_i| is over that; a unit is one output of a layer, or a
    whole vector (bias, norm). The last layer is usually spared. (Brock et al., https://arxiv.org/abs/2102.06171.)
    """
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and name.rpartition(".")[0] != spared:
            allowed = share * _lengths(parameter.detach()).clamp_(min=1e-3)
            parameter.grad.mul_((allowed / _lengths(parameter.grad).clamp_(min=1e-12)).clamp_(max=1))


def _lengths(tensor: Tensor) -> Tensor:
    axes = tuple(range(1, tensor.dim())) or (0,)
    lengths: Tensor = torch.linalg.vector_norm(tensor, dim=axes, keepdim=True)
    return lengths
