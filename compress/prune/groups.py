"""Groups: the channels that can only go together, in every layer that carries them.

A group is proposed by following a forward pass, then held to the law of channel pruning: without some of its
channels the network answers as the one whose layers do not hear them. What cannot be followed, or breaks the
law, is refused by name.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import CompressError, Refusal, unknown
from compress.prune.channels import Channels, follow
from compress.prune.masks import mask
from compress.prune.narrow import Lost, layout_of, per_channel, remove, twin
from compress.prune.recalibrate import measuring

Array = np.ndarray[Any, np.dtype[Any]]
Side = Literal["inputs", "outputs"]
SIDES: tuple[Side, Side] = ("inputs", "outputs")
SMALL = 56
"""The fewest pixels to a side of the images a network is followed on, where it can answer such: two are left after five strides."""
PERIOD, APART = 131_071, 8_191
"""How many random numbers trial weights are made of, and how far apart two layers begin among them; both prime, so that no two filters of a layer are alike."""
LARGE = 32
"""Channels of a group of which three quarters go when the law is tried: what is left takes a quarter of the memory."""
SHARP, ROUNDING = 1e-6, 1e-12
"""Differences the law allows in float64: a share of what the missing channels change, and of the answers themselves."""


@dataclass(frozen=True)
class Member:
    """One side of a layer that carries a group's channels; `places[c]` are channel c's indices there."""

    layer: str
    side: Side
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Group:
    """Channels that several layers share, in the order of the forward pass; each can go, from all of them at once."""

    members: tuple[Member, ...]

    def __hash__(self) -> int:
        """Of its name and size alone: groups are looked up often, and have thousands of places."""
        return hash((self.name, self.channels))

    @property
    def channels(self) -> int:
        """How many there are to choose from."""
        return len(self.members[0].places)

    @property
    def _made(self) -> Member:
        return next(member for member in self.members if member.side == "outputs")

    @property
    def width(self) -> int:
        """How many outputs one of them is in the layer that makes it; more than one where that works in blocks."""
        return len(self._made.places[0])

    @property
    def name(self) -> str:
        """The first layer that makes these channels."""
        return self._made.layer

    @property
    def first(self) -> int:
        """The first of that layer's outputs that is among them."""
        return min(map(min, self._made.places))


Chosen = Mapping[Group, Sequence[int]]
"""The channels to remove from each group."""


def titled(groups: Iterable[Group]) -> dict[str, Group]:
    """Groups by their names; where a layer makes the channels of several, with the first of those that a group has."""
    groups = list(groups)
    several = Counter(group.name for group in groups)
    return {f"{group.name} (from {group.first})" if several[group.name] > 1 else group.name: group for group in groups}


def keyed(titles: Mapping[str, Group]) -> dict[object, Group]:
    """Groups by the layers that carry them: titles change when a group ends, as one that is down to a channel does.

    Where several are carried by the same layers, by title all the same.
    """
    carriers = {title: frozenset((each.layer, each.side) for each in group.members) for title, group in titles.items()}
    alike = Counter(carriers.values())
    return {carriers[title] if alike[carriers[title]] == 1 else title: group for title, group in titles.items()}


def lost(chosen: Chosen) -> dict[str, Lost]:
    """What each layer loses when the `chosen` channels go."""
    layers: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for group, channels in chosen.items():
        for member in group.members:
            places = [place for channel in channels for place in member.places[channel]]
            layers[member.layer][member.side == "outputs"].extend(places)
    return {layer: sides for layer, sides in layers.items() if any(sides)}


def find_groups(
    network: nn.Module, input_shape: tuple[int, int, int], exclude: Sequence[str] = ()
) -> tuple[tuple[Group, ...], tuple[Refusal, ...]]:
    """The groups whose channels can go, and why every other layer keeps all of its own.

    `exclude` names layers, or modules with all layers in them, that are to stay as they are.
    Raises UsageError for a name the network does not have, and CompressError where it cannot be run.
    """
    names = [name for name, _ in network.named_modules() if name]
    for name in exclude:
        if name not in names:
            raise unknown("layer", name, names)
    generator = torch.Generator().manual_seed(0)
    tried = trial(network, generator)
    channels, images = _followed(tried, input_shape, generator)
    proposed, kept = _propose(channels, exclude)
    with torch.no_grad():
        groups, broken = _lawful(tried, images[:1], (), tuple(proposed))
    for group, reason in broken.items():
        kept |= dict.fromkeys(proposed[group], reason)
    free = {number for group in groups for number in proposed[group]}
    refusals = []
    for name, layer in network.named_modules():
        layout = layout_of(layer)
        if layout is None or per_channel(layout) or not free.isdisjoint(channels.outputs.get(name, ())):
            continue
        reasons = [kept[number] for number in channels.outputs.get(name, ()) if number in kept]
        refusals.append(Refusal(name, reasons[0] if reasons else "the forward pass never calls it"))
    return groups, tuple(refusals)


def _followed(
    tried: nn.Module, input_shape: tuple[int, int, int], generator: torch.Generator
) -> tuple[Channels, Tensor]:
    """Which channels belong together, and the images that showed it: the smallest that the network can answer.

    That does not depend on how large they are, and what it costs does.
    """
    channels, height, width = input_shape
    if min(height, width) >= 2 * SMALL:
        with suppress(CompressError):
            return _followed(tried, (channels, height // 2, width // 2), generator)
    images = torch.rand(2, *input_shape, generator=generator, dtype=torch.float64)
    try:
        with measuring(tried):
            return follow(tried, images), images
    except CompressError:
        raise
    except Exception as error:  # whatever the network's own code raises for an image it was not made for
        raise CompressError(
            f"the network cannot answer an image of {input_shape}, so its channels cannot be followed: "
            f"{type(error).__name__}: {error}. Give the image size it was made for."
        ) from error


def _propose(channels: Channels, exclude: Sequence[str]) -> tuple[dict[Group, tuple[int, ...]], dict[int, str]]:
    """Channels as groups, each with the numbers it is made of, and by number why the others are none."""
    carried = {(name, side): np.array(getattr(channels, side)[name]) for name in channels.outputs for side in SIDES}
    excluded: dict[int, str] = {}
    for (name, _), numbers in carried.items():
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in exclude):
            excluded |= {number: f"{name} was excluded" for number in numbers.tolist() if number not in excluded}
    kept = {**channels.fixed, **excluded}
    sides = [(*member, set(own.tolist()), own, np.argsort(own, kind="stable")) for member, own in carried.items()]
    groups = {}
    for numbers in _alike(list(carried.values()), list(kept)):
        if len(numbers) == 1:
            kept[int(numbers[0])] = "all its channels go together, so none can"
            continue
        holding = [
            (layer, side, _places(own, order, numbers)) for layer, side, held, own, order in sides if numbers[0] in held
        ]
        groups[Group(tuple(Member(*member) for member in holding))] = tuple(numbers.tolist())
    return groups, kept


def _alike(sides: Sequence[Array], kept: Sequence[int]) -> list[Array]:
    """The numbers that each of `sides` holds as often as all others of their set, without those `kept`, as they are met."""
    if not sides:
        return []
    met, first = np.unique(np.concatenate(sides), return_index=True)
    kind = np.zeros(met[-1] + 1, dtype=np.int64)
    for numbers in sides:
        own, count = np.unique(numbers, return_counts=True)
        _, finer = np.unique(kind[own] * (count.max() + 1) + count, return_inverse=True)
        kind[own] = kind.max() + 1 + finer
    met = met[np.argsort(first)]
    met = met[~np.isin(met, kept)]
    _, meeting, of = np.unique(kind[met], return_index=True, return_inverse=True)
    turn = meeting[of]  # when the first of its set is met
    order = np.argsort(turn, kind="stable")
    return np.split(met[order], np.flatnonzero(np.diff(turn[order])) + 1) if len(met) else []


def _places(numbers: Array, order: Array, wanted: Array) -> tuple[tuple[int, ...], ...]:
    """Where each of the `wanted` numbers, all found as often, stands among `numbers`, which `order` sorts."""
    begin, end = (np.searchsorted(numbers, wanted, side, sorter=order) for side in ("left", "right"))
    return tuple(map(tuple, order[begin[:, None] + np.arange(end[0] - begin[0])].tolist()))


def trial(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """The network in float64 with random weights: the law is tried on the structure, and a dead channel hides nothing.

    All weights are windows of the same few random numbers, over and over, each begun elsewhere: drawing those of a large
    network takes longer than trying it, and layers whose weights are to be equally large share memory besides.
    """
    drawn = torch.empty(PERIOD, dtype=torch.float64).uniform_(-1, 1, generator=generator)
    sizes: dict[int, int] = defaultdict(int)
    for parameter in network.parameters():
        sizes[_fan_in(parameter)] = max(sizes[_fan_in(parameter)], parameter.numel())
    spread = {fan: _spread(drawn, fan, size + PERIOD) for fan, size in sizes.items()}
    begun = itertools.count(0, APART)

    def window(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            return tensor.detach().cpu().double() if tensor.is_floating_point() else tensor.detach().cpu().clone()
        return nn.Parameter(spread[_fan_in(tensor)][next(begun) % PERIOD :][: tensor.numel()].view(tensor.shape))

    return twin(network, window).eval()


def _fan_in(parameter: Tensor) -> int:
    """How many weights make one output, as the nearest power of four; 0 for what is one number for a channel."""
    return 4 ** round(math.log(max(parameter[0].numel(), 1), 4)) if parameter.dim() > 1 else 0


def _spread(numbers: Tensor, fan_in: int, count: int) -> Tensor:
    """So many of some numbers in -1 ... 1, over and over, as weights that keep activations about as large as they are, or scales around 1."""
    centre, reach = (0.0, (6 / fan_in) ** 0.5) if fan_in else (1.0, 0.5)
    return (numbers * reach + centre).repeat(-(-count // len(numbers)))[:count]


def _lawful(
    trial: nn.Module, image: Tensor, given: tuple[Group, ...], groups: tuple[Group, ...]
) -> tuple[tuple[Group, ...], dict[Group, str]]:
    """Those of `groups` that keep the law together with the ones `given`, and why the others do not."""
    if not groups or (reason := _broken(trial, image, (*given, *groups))) is None:
        return groups, {}
    if len(groups) == 1:
        return (), {groups[0]: reason}
    half = len(groups) // 2
    first, broken = _lawful(trial, image, given, groups[:half])
    second, others = _lawful(trial, image, (*given, *first), groups[half:])
    return first + second, broken | others


def _broken(trial: nn.Module, image: Tensor, groups: tuple[Group, ...]) -> str | None:
    """Why the law does not hold when half the channels of each group go, or more of a large one; None where it does."""
    generator = torch.Generator().manual_seed(len(groups))
    chosen = {}
    for group in groups:
        many = group.channels // 2 if group.channels < LARGE else 3 * group.channels // 4
        odd = (many - 1) | 1  # what cuts channels into equal parts is found out by an odd number
        chosen[group] = torch.randperm(group.channels, generator=generator)[:odd].tolist()
    going = lost(chosen)
    full, heard = trial(image), mask(trial, going)(image)
    try:
        narrowed = remove(trial, going)(image)
    except Exception as error:  # whatever the network's own code raises when its layers are smaller
        first_line = (str(error).splitlines() or [""])[0]
        return f"the forward pass fails without some of its channels: {type(error).__name__}: {first_line}"
    allowed = SHARP * (full - heard).abs().max() + ROUNDING * full.abs().max()
    if narrowed.shape != heard.shape or not (narrowed - heard).abs().max() <= allowed:
        return "the forward pass depends on how many channels it has"
    return None
