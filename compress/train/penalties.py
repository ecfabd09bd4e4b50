"""Weights drawn to zero while a network trains, so that less of it is needed.

Where exact zeros are wanted (L1, group lasso, batch-norm scales) the pull is a proximal step after the
optimiser's: w <- argmin_v |v - w|^2 / 2 + rate * penalty(v). A gradient of the penalty would jump over zero
at every step and leave none. L2 has no corner at zero and is part of the loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from compress.train.loop import AfterStep


def squares(network: nn.Module, strength: float) -> Tensor:
    """strength / 2 * the sum of squares of all weights (biases and norm parameters are left alone): L2, for the loss."""
    return strength / 2 * torch.stack([weight.square().sum() for weight in _weights(network)]).sum()


def shrink(tensor: Tensor, threshold: float) -> None:
    """The proximal step of threshold * sum |w|, in place: sign(w) max(|w| - threshold, 0)."""
    tensor.copy_(functional.softshrink(tensor, threshold))


def shrink_group(pieces: Sequence[Tensor], threshold: float) -> None:
    """The proximal step of threshold * sqrt(n_c) |w_c|, in place, for each channel c of some tensors together.

    w_c <- w_c max(0, 1 - threshold sqrt(n_c) / |w_c|), where w_c are the n_c numbers at [c] of all `pieces`,
    each of shape (channels, ...). (Yuan and Lin, https://doi.org/10.1111/j.1467-9868.2005.00532.x; for
    channels, Wen et al., https://arxiv.org/abs/1608.03665.)
    """
    flat = [piece.flatten(1) for piece in pieces]
    numbers = sum(each.shape[1] for each in flat)
    lengths = torch.stack([each.square().sum(1) for each in flat]).sum(0).sqrt()
    kept = (1 - threshold * numbers**0.5 / lengths.clamp_(min=1e-12)).clamp_(min=0)
    for piece in pieces:
        piece.mul_(kept.reshape(-1, *[1] * (piece.dim() - 1)))


def proximal_l1(network: nn.Module, optimiser: Optimizer, strength: float) -> AfterStep:
    """After each step, `shrink` all weights by rate * strength; biases and norm parameters are left alone."""
    return _shrinking(_weights(network), optimiser, strength)


def proximal_scales(network: nn.Module, optimiser: Optimizer, strength: float) -> AfterStep:
    """After each step, `shrink` the scales of all batch norms by rate * strength.

    (Network slimming, https://arxiv.org/abs/1708.06519, which takes a sub-gradient.)
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.affine]
    return _shrinking([norm.weight for norm in norms], optimiser, strength)


@dataclass(frozen=True)
class Slice:
    """The numbers of a parameter that belong to a group's channels: row `places[c]` along `axis` is channel c's."""

    parameter: Tensor
    axis: int
    places: tuple[tuple[int, ...], ...]


def proximal_groups(groups: Sequence[Sequence[Slice]], optimiser: Optimizer, strength: float) -> AfterStep:
    """After each step, `shrink_group` by rate * strength every group: the weights that make its channels and learn."""
    rates = _rates(optimiser)
    indexed = [
        [(slice_, torch.tensor(slice_.places, device=slice_.parameter.device)) for slice_ in group] for group in groups
    ]

    @torch.no_grad()
    def after(network: nn.Module, taken: int) -> None:
        for every in indexed:
            group = [(slice_, places) for slice_, places in every if slice_.parameter.requires_grad]
            if not group:
                continue
            moved = [slice_.parameter.movedim(slice_.axis, 0) for slice_, _ in group]
            pieces = [each[places] for each, (_, places) in zip(moved, group, strict=True)]
            shrink_group(pieces, strength * rates(group[0][0].parameter))
            for each, piece, (_, places) in zip(moved, pieces, group, strict=True):
                each[places] = piece

    return after


def _shrinking(parameters: Sequence[Tensor], optimiser: Optimizer, strength: float) -> AfterStep:
    rates = _rates(optimiser)

    @torch.no_grad()
    def after(network: nn.Module, taken: int) -> None:
        for parameter in parameters:
            if parameter.requires_grad:
                shrink(parameter, strength * rates(parameter))

    return after


def _weights(network: nn.Module) -> list[Tensor]:
    return [parameter for parameter in network.parameters() if parameter.dim() > 1]


def _rates(optimiser: Optimizer) -> Callable[[Tensor], float]:
    """The learning rate a parameter has at the moment."""
    groups = {id(parameter): group for group in optimiser.param_groups for parameter in group["params"]}
    return lambda parameter: float(groups[id(parameter)]["lr"])
