"""torch's optimisers, with weight decay where it belongs."""

from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

OPTIMISERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda groups, rate: torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True),
    "adamw": lambda groups, rate: torch.optim.AdamW(groups, lr=rate),
}


def optimiser(name: str, network: nn.Module, rate: float, weight_decay: float) -> Optimizer:
    """An optimiser over all parameters; biases and norm parameters (those of one dimension) do not decay."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return OPTIMISERS[name]([group for group in groups if group["params"]], rate)
