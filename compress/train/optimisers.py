"""torch's optimisers, with weight decay where it belongs and a rate for every depth."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

Groups = list[dict[str, Any]]
OPTIMISERS: dict[str, Callable[[Groups, float, float, bool], Optimizer]] = {
    "sgd": lambda groups, rate, momentum, nesterov: torch.optim.SGD(
        groups, lr=rate, momentum=momentum, nesterov=nesterov and momentum > 0
    ),
    "adam": lambda groups, rate, momentum, nesterov: torch.optim.Adam(groups, lr=rate),
    "adamw": lambda groups, rate, momentum, nesterov: torch.optim.AdamW(groups, lr=rate),
    "rmsprop": lambda groups, rate, momentum, nesterov: torch.optim.RMSprop(groups, lr=rate, momentum=momentum),
}
"""Each name's optimiser, of (parameter groups, rate, momentum, nesterov); adamw decays weights apart from the gradient."""


def optimiser(
    name: str,
    network: nn.Module,
    rate: float,
    weight_decay: float,
    momentum: float = 0.9,
    nesterov: bool = True,
    depth_rate: float = 1.0,
) -> Optimizer:
    """An optimiser over all parameters that learn; biases and norm parameters (those of one dimension) do not decay.

    The last layer, in the order the network declares them, learns at `rate` and the first at rate *
    `depth_rate`; layer i of 0 ... n - 1 has rate * depth_rate^(1 - i / (n - 1)).
    (https://arxiv.org/abs/1801.06146, section 3.2.) The first group is the last layer's.
    """
    layers: dict[str, list[nn.Parameter]] = {}
    for path, parameter in network.named_parameters():
        if parameter.requires_grad:
            layers.setdefault("all" if depth_rate == 1 else path.rpartition(".")[0], []).append(parameter)
    groups: Groups = []
    for number, layer in enumerate(reversed(layers.values())):
        own = rate * depth_rate ** (number / max(1, len(layers) - 1))
        for decay, several in ((weight_decay, True), (0.0, False)):
            some = [parameter for parameter in layer if (parameter.dim() > 1) == several]
            if some:
                groups.append({"params": some, "weight_decay": decay, "lr": own})
    return OPTIMISERS[name](groups, rate, momentum, nesterov)
