"""Groups: the channels that can only go together, in every layer that carries them.

A group is proposed by following a forward pass, then held to the law of channel pruning: without some of its
channels the network answers as the one whose layers do not hear them. What cannot be followed, or breaks the
law, is refused by name.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compress.errors import CompressError, Refusal, unknown
from compress.prune.channels import Channels, follow
from compress.prune.masks import mask
from compress.prune.narrow import Lost, layout_of, per_channel, remove, twin
from compress.prune.recalibrate import recalibrate

Side = Literal["inputs", "outputs"]
SIDES: tuple[Side, Side] = ("inputs", "outputs")
SMALL = 56
"""The fewest pixels to a side of the images a network is followed on, where it can answer such: two are left after five strides."""
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

    @property
    def channels(self) -> int:
        """How many there are to choose from."""
        return len(self.members[0].places)

    @property
    def width(self) -> int:
        """How many outputs one of them is in the layer that makes it; more than one where that works in blocks."""
        return len(next(member for member in self.members if member.side == "outputs").places[0])

    @property
    def name(self) -> str:
        """The first layer that makes these channels."""
        return next(member.layer for member in self.members if member.side == "outputs")


Chosen = Mapping[Group, Sequence[int]]
"""The channels to remove from each group."""


def titled(groups: Iterable[Group]) -> dict[str, Group]:
    """Groups by their names; where a layer makes the channels of several, with a number."""
    named = [(group.name, group) for group in groups]
    several = Counter(name for name, _ in named)
    seen: Counter[str] = Counter()
    titles = {}
    for name, group in named:
        seen[name] += 1
        titles[f"{name} ({seen[name]})" if several[name] > 1 else name] = group
    return titles


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
        recalibrate(tried, [images])
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
    places: dict[int, dict[tuple[str, Side], list[int]]] = defaultdict(lambda: defaultdict(list))
    excluded: dict[int, str] = {}
    for name in channels.outputs:
        asked = any(name == prefix or name.startswith(f"{prefix}.") for prefix in exclude)
        for side in SIDES:
            for place, number in enumerate(getattr(channels, side)[name]):
                places[number][name, side].append(place)
                if asked:
                    excluded.setdefault(number, f"{name} was excluded")
    kept = {**channels.fixed, **excluded}
    alike: dict[tuple[tuple[str, Side, int], ...], list[int]] = defaultdict(list)
    for number, carried in places.items():
        if number not in kept:
            alike[tuple((*member, len(found)) for member, found in carried.items())].append(number)
    groups = {}
    for signature, numbers in alike.items():
        if len(numbers) == 1:
            kept[numbers[0]] = "all its channels go together, so none can"
            continue
        members = tuple(
            Member(layer, side, tuple(tuple(places[number][layer, side]) for number in numbers))
            for layer, side, _ in signature
        )
        groups[Group(members)] = tuple(numbers)
    return groups, kept


def trial(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """The network in float64 with random weights: the law is tried on the structure, and a dead channel hides nothing."""

    def drawn(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            return tensor.detach().cpu().double() if tensor.is_floating_point() else tensor.detach().cpu().clone()
        fresh = torch.empty(tensor.shape, dtype=torch.float64)
        reach = (6 / fresh[0].numel()) ** 0.5 if fresh.dim() > 1 else 0.5
        centre = 0 if fresh.dim() > 1 else 1
        return nn.Parameter(fresh.uniform_(centre - reach, centre + reach, generator=generator))

    return twin(network, drawn).eval()


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
    """Why the law does not hold when about half the channels of each group go; None where it does."""
    generator = torch.Generator().manual_seed(len(groups))
    chosen = {}
    for group in groups:
        odd = (group.channels // 2 - 1) | 1  # what cuts channels into equal parts is found out by an odd number
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
