"""Criteria: how much each channel of a group is worth, by its weights or by what images make of it. The lowest go first."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from compress.errors import Refusal, unknown
from compress.pipeline import Resources
from compress.prune.calibration import batches
from compress.prune.channels import axis_of, tensors
from compress.prune.gradients import gradients, labelled
from compress.prune.groups import Group
from compress.prune.narrow import layout_of, per_channel

IMAGES = 1024
"""How many images a criterion looks at, where nothing else is said."""

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


Measured = Callable[[nn.Module, Sequence[Group], Resources, int], dict[Group, Tensor]]
"""Scores of each group's channels, from what a number of images makes of them; NaN where nothing shows."""


@torch.no_grad()
def taylor(network: nn.Module, groups: Sequence[Group], resources: Resources, images: int) -> dict[Group, Tensor]:
    """E|sum g w| over a channel's weights: to first order, the change of a batch's loss without them, g its gradient.

    (Molchanov et al., https://arxiv.org/abs/1906.10771, section 3.1, with the absolute value for the square.)
    """
    layers = {member.layer: None for group in groups for member in group.members if member.side == "outputs"}
    own = {name: weight for name in layers if (weight := _weight(network, name)) is not None}
    scores, count = {group: torch.zeros(group.channels) for group in groups}, 0
    for found in gradients(network, list(own.values()), labelled(resources, images)):
        products = {name: weight * gradient for (name, weight), gradient in zip(own.items(), found, strict=True)}
        for group, score in scores.items():
            score += _evidence(network, group, products)[0].sum(1).abs()
        count += 1
    return {group: score / count for group, score in scores.items()}


@torch.no_grad()
def activation(network: nn.Module, groups: Sequence[Group], resources: Resources, images: int) -> dict[Group, Tensor]:
    """mean |a| of what the layers that read a channel are given: after its norm and activation, over images and places."""
    readers = {
        member.layer: network.get_submodule(member.layer)
        for group in groups
        for member in group.members
        if member.side == "inputs" and not _per_channel(network.get_submodule(member.layer))
    }
    sums: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def note(name: str, layer: nn.Module, *given: Any) -> None:
        heard = tensors(given)[0]
        channels = heard.detach().abs().movedim(axis_of(layer, heard), 0).flatten(1)
        sums[name] = sums.get(name, torch.zeros(len(channels))) + channels.double().sum(1).cpu()
        calls[name] += channels.shape[1]

    with ExitStack() as stack:
        for name, layer in readers.items():
            stack.callback(layer.register_forward_pre_hook(partial(note, name), with_kwargs=True).remove)
        for shown in batches(resources, images, "prune"):
            network(shown)
    means = {name: (total / calls[name]).float() for name, total in sums.items()}
    return {
        group: torch.stack(
            [
                means[m.layer][torch.tensor(m.places)].mean(1)
                for m in group.members
                if m.side == "inputs" and m.layer in means
            ]
            or [torch.full((group.channels,), torch.nan)]
        ).mean(0)
        for group in groups
    }


MEASURED: dict[str, Measured] = {"taylor": taylor, "activation": activation}


def score_groups(
    network: nn.Module, groups: Sequence[Group], criterion: str, resources: Resources, images: int = IMAGES
) -> tuple[dict[Group, Tensor], tuple[Refusal, ...]]:
    """What a criterion thinks of each group's channels, and the groups it has nothing to go by for.

    `network` is on the device of `resources`, where a criterion shows it `images`. Raises UsageError for a criterion
    there is not, and for one that asks images where there is no data.
    """
    if criterion in MEASURED:
        found = MEASURED[criterion](network, groups, resources, images) if groups else {}
    elif criterion in CRITERIA:
        generator = Generator().manual_seed(resources.seed)
        own = {name: weight for name, _ in network.named_modules() if (weight := _weight(network, name)) is not None}
        found = {group: CRITERIA[criterion](*_evidence(network, group, own), generator) for group in groups}
    else:
        raise unknown("criterion", criterion, [*CRITERIA, *MEASURED])
    return {group: own for group, own in found.items() if own.isfinite().all()}, tuple(
        Refusal(group.name, f"the criterion {criterion} finds nothing to go by, such as a batch norm")
        for group, own in found.items()
        if not own.isfinite().all()
    )


def _evidence(network: nn.Module, group: Group, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The (filters, scales) of a group, one row per channel, from `values` of the shape of each layer's weights."""
    filters, scales = [torch.empty(group.channels, 0)], [torch.empty(group.channels, 0)]
    for member in group.members:
        layer, value = network.get_submodule(member.layer), values.get(member.layer)
        if member.side == "inputs" or value is None:
            continue
        rows = value.detach().float().cpu()
        if isinstance(layer, _ConvTransposeNd):
            rows = rows.reshape(layer.groups, -1, *rows.shape[1:]).transpose(1, 2).flatten(0, 1)
        rows = rows.flatten(1) if rows.dim() > 1 else rows[:, None]
        kind = scales if isinstance(layer, _BatchNorm) else filters
        if kind is scales or not _per_channel(layer):
            kind.append(rows[torch.tensor(member.places)].flatten(1))
    return torch.cat(filters, 1), torch.cat(scales, 1)


def _weight(network: nn.Module, layer: str) -> Tensor | None:
    found = getattr(network.get_submodule(layer), "weight", None)
    return found if isinstance(found, Tensor) else None


def _per_channel(layer: nn.Module) -> bool:
    layout = layout_of(layer)
    return layout is not None and per_channel(layout)
