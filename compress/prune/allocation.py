"""Allocation: how many channels each group gives, for a share of the channels or of what they cost."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.errors import CompressError, Refusal
from compress.macs import layer_macs, parameters
from compress.prune.groups import Chosen, Group
from compress.prune.narrow import blocks_of, layout_of, size_of

Scores = Mapping[Group, Tensor]
Counts = dict[Group, int]
Allocation = Callable[[Scores, float], dict[Group, float]]
"""How many channels each group should give where a share of all is to go, before rounding."""

Cost = Callable[[Mapping[Group, int]], float]
"""The share of a cost, such as the MACs, that is left once each group has given so many channels."""

HALVINGS = 12
FINER = (16, 8, 4, 2, 1)
"""The multiples that are tried where a coarser one cannot reach a target."""
CHANNELS = "channels"
CLOSE, NEAR = 0.01, 0.05
"""A share of a cost counts as reached up to this much above it, and this part of it: channels come in multiples."""


def allowed(share: float, what: str = "") -> float:
    """The highest share of a cost that counts as `share`; of channels the share removed is asked for, and few may be left."""
    return share + (CLOSE if what == CHANNELS else min(CLOSE, NEAR * share))


def uniform(scores: Scores, ratio: float) -> dict[Group, float]:
    """The same share of every group."""
    return {group: ratio * group.channels for group in scores}


def overall(scores: Scores, ratio: float) -> dict[Group, float]:
    """The lowest scores of all groups together, each group's measured by their mean."""
    relative = {group: own / own.mean().clamp_min(torch.finfo(own.dtype).tiny) for group, own in scores.items()}
    return lowest_share(relative, ratio)


def lowest_share(scores: Scores, ratio: float) -> dict[Group, float]:
    """How many of each group's channels are among the lowest share `ratio` of all; of equal ones, those that come first."""
    owners = torch.repeat_interleave(torch.tensor([len(own) for own in scores.values()]))
    order = torch.cat(list(scores.values())).argsort(stable=True)
    counts = owners[order[: int(ratio * len(order))]].bincount(minlength=len(scores))
    return dict(zip(scores, map(float, counts), strict=True))


ALLOCATIONS: dict[str, Allocation] = {"uniform": uniform, "global": overall}


@dataclass(frozen=True)
class Bounds:
    """What stays of a group: a multiple of `round_to` channels, and no less than all but the share `largest`."""

    round_to: int
    largest: float

    def nearest(self, group: Group, wanted: float) -> int:
        """How many channels a group can give that comes nearest to `wanted`; of two as near, the fewer."""
        step = self.round_to // math.gcd(self.round_to, group.width)
        least = step * max(1, math.ceil(round((1 - self.largest) * group.channels / step, 9)))
        kept = step * math.floor((group.channels - wanted) / step + 0.5)
        return max(0, group.channels - max(least, kept))

    def most(self, group: Group) -> int:
        """How many channels a group can give at most."""
        return self.nearest(group, group.channels)


def too_small(scores: Scores, bounds: Bounds) -> tuple[Refusal, ...]:
    """A refusal for each group that has nothing to give within `bounds`."""
    giving = Bounds(bounds.round_to, 1.0)
    return tuple(
        Refusal(
            group.name,
            f"has {group.channels * group.width} channels, and a multiple of {bounds.round_to} has to stay"
            + f", of at least {1 - bounds.largest:.0%}" * bool(giving.most(group)),
        )
        for group in scores
        if not bounds.most(group)
    )


def lowest(scores: Scores, counts: Counts) -> Chosen:
    """The channels with the lowest scores, as many of each group as `counts` says; groups that give none are left out."""
    order = {group: scores[group].sort(stable=True).indices[:count] for group, count in counts.items() if count}
    return {group: tuple(sorted(channels.tolist())) for group, channels in order.items()}


def for_ratio(allocation: Allocation, scores: Scores, bounds: Bounds, ratio: float) -> Counts:
    """How many channels each group gives so that about a share `ratio` goes of all in groups that have something to give."""
    giving = {group: own for group, own in scores.items() if bounds.most(group)}
    return {group: bounds.nearest(group, wanted) for group, wanted in allocation(giving, ratio).items()}


def for_cost(
    allocation: Allocation,
    scores: Scores,
    bounds: Bounds,
    share: float,
    cost: Cost,
    what: str = "MACs",
    remedy: Callable[[], str] = str,
) -> Counts:
    """How many channels each group gives so that a share `share` of a cost stays, or up to `allowed` where that is nearer.

    Raises CompressError where it cannot be reached, with the nearest figure and what would reach it: another
    multiple, a larger share of a group, or what `remedy` adds. `what` the cost is of.
    """
    if cost(for_ratio(allocation, scores, bounds, 1)) > allowed(share, what):
        raise _unreachable(allocation, scores, bounds, share, cost, what, remedy())
    found = [_within(allocation, scores, bounds, limit, cost) for limit in (share, allowed(share, what))]
    return min(found, key=lambda counts: abs(cost(counts) - share))


def bisected(enough: Callable[[float], bool], halvings: int = HALVINGS) -> tuple[float, float]:
    """Two ratios from 0 to 1 close to each other, `enough` of which only the second is, or else 1."""
    low, high = 0.0, 1.0
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return low, high


def _within(allocation: Allocation, scores: Scores, bounds: Bounds, limit: float, cost: Cost) -> Counts:
    """The fewest channels that bring the cost down to `limit`, by bisection over the ratio, or the most there are to give."""
    ratios = bisected(lambda ratio: cost(for_ratio(allocation, scores, bounds, ratio)) <= limit)
    few, many = (for_ratio(allocation, scores, bounds, ratio) for ratio in ratios)
    # Groups of one size take the last step together; those whose step is not needed take it back.
    for group in many:
        if cost(many | {group: few[group]}) <= limit:
            many[group] = few[group]
    return many


def channel_cost_of(channels: int) -> Cost:
    """What share of so many channels is left once each group has given some of them."""
    return lambda counts: 1 - sum(counts.values()) / channels


def cost_of(network: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """What share of `network`'s MACs is left once each group has given so many channels."""
    macs = layer_macs(network, input_shape)
    layers = {name: layer for name, layer in network.named_modules() if name in macs and layout_of(layer)}
    sizes = {name: size_of(layer) for name, layer in layers.items()}
    mixing = {name for name, layer in layers.items() if blocks_of(layer) == 1}

    def cost(counts: Mapping[Group, int]) -> float:
        left: dict[str, float] = dict(macs)
        for name, (inputs, outputs) in _shares(sizes, counts).items():
            left[name] *= outputs * (inputs if name in mixing else 1)  # blocks keep their size
        return sum(left.values()) / sum(macs.values())

    return cost


def parameter_cost_of(network: nn.Module) -> Cost:
    """What share of `network`'s parameters is left once each group has given so many channels."""
    layers = {name: layer for name, layer in network.named_modules() if layout_of(layer)}
    sizes = {name: size_of(layer) for name, layer in layers.items()}
    total = parameters(network)

    def cost(counts: Mapping[Group, int]) -> float:
        left = {id(parameter): float(parameter.numel()) for parameter in network.parameters()}
        for name, shares in _shares(sizes, counts).items():
            layout = layout_of(layers[name])
            for tensor, axes in layout.axes.items() if layout else ():
                parameter = layers[name]._parameters.get(tensor)
                if parameter is not None:
                    # An axis shorter than the channels it stands for runs within a block, and blocks keep their size.
                    cut = zip(axes, sizes[name], shares, strict=True)
                    narrowed = (
                        share for axis, size, share in cut if axis is not None and parameter.shape[axis] == size
                    )
                    left[id(parameter)] = parameter.numel() * math.prod(narrowed)
        return sum(left.values()) / total

    return cost


def _shares(sizes: Mapping[str, tuple[int, int]], counts: Mapping[Group, int]) -> dict[str, tuple[float, float]]:
    """The shares of its inputs and of its outputs that each layer keeps; `sizes` are how many it has of both."""
    kept = {name: [*size] for name, size in sizes.items()}
    for group, count in counts.items():
        for member in group.members:
            if member.layer in kept:
                kept[member.layer][member.side == "outputs"] -= count * len(member.places[0])
    return {name: (left[0] / sizes[name][0], left[1] / sizes[name][1]) for name, left in kept.items()}


def _unreachable(
    allocation: Allocation, scores: Scores, bounds: Bounds, share: float, cost: Cost, what: str, remedy: str
) -> CompressError:
    """What was asked for, the nearest figure there is, and the first bounds that would reach it of those a user would rather give."""

    def least_within(tried: Bounds) -> float:
        return cost(for_ratio(allocation, scores, tried, 1))

    def reaching(several: Iterable[Bounds]) -> Bounds | None:
        return next((each for each in several if least_within(each) <= allowed(share, what)), None)

    larger = [hundredths / 100 for hundredths in range(1, 100) if hundredths / 100 > bounds.largest]
    remedies = [remedy] * bool(remedy)
    if finer := reaching(Bounds(multiple, bounds.largest) for multiple in FINER if multiple < bounds.round_to):
        remedies.insert(0, f"round_to {finer.round_to} reaches it")
    elif deeper := reaching(Bounds(bounds.round_to, largest) for largest in larger):
        remedies.insert(0, f"largest {deeper.largest:g} reaches it")
    elif both := reaching(Bounds(1, largest) for largest in larger):
        remedies.insert(0, f"round_to 1 with largest {both.largest:g} reaches it")
    least = least_within(bounds)
    within = f"with channels in multiples of {bounds.round_to} and at most {bounds.largest:.0%} of a group removed"
    if what == CHANNELS:
        said = f"a channel ratio of {1 - share:g} was asked for, and {1 - least:.3f} is the most there is {within}"
        nearest = max(0.01, math.floor((1 - least) * 100) / 100)
    else:
        said = f"a share of {share:g} of the {what} was asked for, and {least:.3f} is the least there is {within}"
        nearest = min(0.99, math.ceil(least * 100) / 100)
    return CompressError(
        f"{said}: {'; '.join(remedies) or f'neither other multiples nor larger shares reach it, ask for {nearest:.2f}'}."
    )
