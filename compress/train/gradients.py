"""What is done to gradients before the optimiser sees them."""

from torch import nn


def clip_norm(network: nn.Module, longest: float) -> None:
    """Scale all gradients down together where their joint length is over `longest`.

    (Pascanu et al., https://arxiv.org/abs/1211.5063.)
    """
    nn.utils.clip_grad_norm_(network.parameters(), longest)
