"""Criteria: how much each channel of a group is worth, by its weights alone. The lowest scores go first."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from compress.errors import Refusal, unknown
from compress.prune.groups import Group
from compress.prune.narrow import layout_of, per_channel

Criterion = Callable[[Tensor, Tensor, Generator], Tensor]
"""Scores (C,) of a group's C channels, from three things.

`filters` (C, n): every weight that makes a channel, of all layers that make it side by side.
`scales` (C, m): the scales of the batch norms the channel goes through; m is 0 where there are none.
`generator`: the source of chance.
"""


def l1(filters: Tensor, scales: Tensor, generator: Generator) -> Tensor:
    """sum |w| over a channel's weights (Li et al., https://arxiv.org/abs/1608.08710)."""
    return filters.abs().sum(1)


def l2(filters: Tensor, scales: Tensor, generator: Generator) -> Tensor:
    """sqrt(sum w^2) over a channel's weights, in all layers of the group together."""
    return filters.square().sum(1).sqrt()


def fpgm(filters: Tensor, scales: Tensor, generator: Generator) -> Tensor:
    """sum_j ||w - w_j||: what lies near the geometric median can be replaced by the others (https://arxiv.org/abs/1811.00250)."""
    return torch.cdist(filters, filters).sum(1)


def bn_scale(filters: Tensor, scales: Tensor, generator: Generator) -> Tensor:
    """mean |gamma| of the batch norms a channel goes through (Liu et al., https://arxiv.org/abs/1708.06519)."""
    return scales.abs().mean(1)


def random(filters: Tensor, scales: Tensor, generator: Generator) -> Tensor:
    """Chance, the control every criterion has to beat."""
    return torch.rand(len(filters), generator=generator)


CRITERIA: dict[str, Criterion] = {"l1": l1, "l2": l2, "fpgm": fpgm, "bn-scale": bn_scale, "random": random}


def score_groups(
    network: nn.Module, groups: Sequence[Group], criterion: str, seed: int
) -> tuple[dict[Group, Tensor], tuple[Refusal, ...]]:
    """What a criterion thinks of each group's channels, and the groups it has nothing to go by for.

    Raises UsageError for a criterion there is not.
    """
    if criterion not in CRITERIA:
        raise unknown("criterion", criterion, CRITERIA)
    generator = Generator().manual_seed(seed)
    scores: dict[Group, Tensor] = {}
    refusals = []
    for group in groups:
        found = CRITERIA[criterion](*_evidence(network, group), generator)
        if found.isfinite().all():
            scores[group] = found
        else:
            refusals.append(
                Refusal(group.name, f"the criterion {criterion} finds nothing to go by, such as a batch norm")
            )
    return scores, tuple(refusals)


def _evidence(network: nn.Module, group: Group) -> tuple[Tensor, Tensor]:
    """The (filters, scales) of a group, one row per channel."""
    filters, scales = [torch.empty(group.channels, 0)], [torch.empty(group.channels, 0)]
    for member in group.members:
        layer = network.get_submodule(member.layer)
        weight = getattr(layer, "weight", None)
        if member.side == "inputs" or weight is None:
            continue
        rows = weight.detach().float().cpu()
        if isinstance(layer, _ConvTransposeNd):
            rows = rows.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
        rows = rows.flatten(1) if rows.dim() > 1 else rows[:, None]
        kind = scales if isinstance(layer, _BatchNorm) else filters
        if kind is scales or not _per_channel(layer):
            kind.append(rows[torch.tensor(member.places)].flatten(1))
    return torch.cat(filters, 1), torch.cat(scales, 1)


def _per_channel(layer: nn.Module) -> bool:
    layout = layout_of(layer)
    return layout is not None and per_channel(layout)
