"""Removing channels: how many of each group go for a target, which ones, and the network that is left."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from compress.architecture import Architecture
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.errors import CompressError, Refusal
from compress.pipeline import Change, Resources
from compress.prune.allocation import (
    ALLOCATIONS,
    CHANNELS,
    FINER,
    Allocation,
    Bounds,
    Cost,
    Counts,
    Scores,
    allowed,
    channel_cost_of,
    cost_of,
    for_cost,
    for_ratio,
    lowest,
    parameter_cost_of,
    too_small,
)
from compress.prune.blocks import bypass
from compress.prune.criteria import score_groups
from compress.prune.decision import Measured, decided
from compress.prune.groups import Group, find_groups, keyed, lost, titled
from compress.prune.latency import Stopwatch
from compress.prune.narrow import Lost, remove, size_of, twin
from compress.prune.recalibrate import recalibrated
from compress.prune.reconstruct import cheapest, rank, reconstruct
from compress.prune.residuals import find_blocks
from compress.prune.schedules import SCHEDULES
from compress.prune.sensitivity import measure, shares
from compress.prune.shorten import NAMES, cost_in, without
from compress.prune.zeroable import in_fours
from compress.sensitivity import beside

if TYPE_CHECKING:
    from compress.prune.step import Prune

STEPS = 64
"""Into how many steps the share of the channels is divided where each is measured."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """A network, what it costs, its groups by title, what each of their channels is worth, and what is left alone.

    `whole` are how many groups and channels there are, those that were not scored included.
    """

    network: nn.Module
    costs: dict[str, Cost]
    titles: dict[str, Group]
    scores: dict[Group, Tensor]
    refusals: tuple[Refusal, ...]
    whole: tuple[int, int]


class Channels:
    """Removes channels of a checkpoint, or of what training makes of it between rounds.

    How many go of each group is decided once, on the checkpoint; which ones, when they go. Raises CompressError where no
    channel can go or the target is out of reach.
    """

    def __init__(self, step: "Prune", checkpoint: Checkpoint, resources: Resources) -> None:
        self._step, self._resources, self._checkpoint = step, resources, checkpoint
        self._bounds = Bounds(step.multiple, step.largest)
        if step.reconstruct and checkpoint.architecture.masked:
            raise CompressError(
                f"reconstruct would fill the zeros that sparsify left in {', '.join(checkpoint.architecture.masked[:3])}, and "
                "they are to stay. Prune the checkpoint before it and sparsify the result, or leave reconstruct out."
            )
        self._pool = pool = self._survey(checkpoint)
        if not any(map(self._bounds.most, pool.scores)):
            reasons = "; ".join(f"{refusal.layer}: {refusal.reason}" for refusal in pool.refusals[:3])
            raise CompressError(f"no channel of this network can be removed: {reasons}.")
        counts, timed = self._choose()
        if not any(counts.values()):
            raise CompressError(
                f"nothing was removed: what was asked for is less than one step of {step.multiple} channels in any group. "
                "Ask for more to go, or lower `round_to`."
            )
        self._wanted = {key: (group, counts.get(group, 0)) for key, group in keyed(pool.titles).items()}
        groups, channels = pool.whole
        given = step.target is not None and step.round_to is None
        computed = f"; multiples of {step.multiple} stay, which {step.target} computes anyway" * given
        self._notes = (
            f"{sum(counts.values())} of {channels} channels removed, from {sum(map(bool, counts.values()))} of {groups} "
            f"groups; at most {self._bounds.largest:.0%} of any one{computed}",
            f"{pool.costs['macs'](counts):.3f} of the MACs kept",
            f"{pool.costs['parameters'](counts):.3f} of the parameters kept",
            *timed,
        )

    def __call__(self, checkpoint: Checkpoint, done: float) -> Change:
        """The checkpoint without the channels that are due, its batch norms measured again."""
        pool = self._pool if checkpoint is self._checkpoint else self._survey(checkpoint)
        counts: Counts = {}
        for key, group in keyed(pool.titles).items():
            whole, count = self._wanted.get(key, (group, 0))
            due = self._bounds.nearest(whole, SCHEDULES[self._step.schedule](0, count, done))
            counts[group] = max(0, due - (whole.channels - group.channels))
        going = lost(lowest(pool.scores, counts))
        narrowed, unsolved, said = self._narrowed(checkpoint, pool.network, going)
        return Change(
            _architecture(checkpoint, narrowed, going),
            narrowed.state_dict(),
            self._pool.refusals + unsolved,
            (*self._notes, *self._halved(narrowed), *said),
        )

    def _halved(self, narrowed: nn.Module) -> tuple[str, ...]:
        """What there is to say of the checkpoint's layers with two zeros in every four that have them no more."""
        before = in_fours(self._pool.network, self._checkpoint.architecture.masked)
        after = in_fours(narrowed, before)
        broken = [layer for layer in before if layer not in after]
        return (
            f"{', '.join(broken[:3])}{f' and {len(broken) - 3} other layers' * (len(broken) > 3)} had two zeros in every four and "
            "have them no more: sparsify the result to 2:4 again, or prune before it",
        ) * bool(broken)

    def _narrowed(
        self, checkpoint: Checkpoint, network: nn.Module, going: Mapping[str, Lost]
    ) -> tuple[nn.Module, tuple[Refusal, ...], tuple[str, ...]]:
        """The network without what each layer loses, adjusted to it; the layers that could not be, and what it gained."""
        step, resources = self._step, self._resources
        if step.reconstruct:
            shape = checkpoint.architecture.input_shape
            solved, unsolved, gained = reconstruct(network, going, shape, resources, step.images, step.exclude)
            return solved, unsolved, (gained,)
        narrowed = remove(network, going)
        return narrowed, (), (recalibrated(narrowed, resources, step.images),) if step.recalibrate else ()

    def _survey(self, checkpoint: Checkpoint) -> Pool:
        """What a checkpoint has to give."""
        step, resources = self._step, self._resources
        network = build(checkpoint, resources.user, shared=True)
        groups, refused = find_groups(network, checkpoint.architecture.input_shape, step.exclude)
        channels = sum(group.channels for group in groups)
        costs = {
            "channel_ratio": channel_cost_of(channels),
            "macs": cost_of(network, checkpoint.architecture.input_shape),
            "parameters": parameter_cost_of(network),
        }
        if step.reconstruct:
            saved = None if step.channel_ratio is not None else costs.get(step.goal[0], costs["macs"])
            scores, unscored = rank(network, groups, saved, resources, step.images)
        else:
            network.to(resources.device)
            scores, unscored = score_groups(network, groups, step.criterion, resources, step.images)
        return Pool(
            network.cpu(),
            costs,
            titled(scores),
            scores,
            refused + unscored + too_small(scores, self._bounds),
            (len(groups), channels),
        )

    def _without(self, counts: Counts) -> Checkpoint:
        """The checkpoint without the channels of each group that are worth least, in which nothing else has changed."""
        going = lost(lowest(self._pool.scores, counts))
        narrowed = remove(self._pool.network, going)
        architecture = _architecture(self._checkpoint, narrowed, going)
        return dataclasses.replace(self._checkpoint, architecture=architecture, weights=narrowed.state_dict())

    def _choose(self) -> tuple[Counts, tuple[str, ...]]:
        """How many channels each group gives for the step's target, and what was measured to find it."""
        what, share = self._step.goal
        allocation, self._bounds = self._allocation(what)
        bounds = self._bounds
        if what == "latency":
            titles = self._pool.titles
            measure = partial(self._by_latency, allocation, bounds, share)
            going, note = decided(self._step, self._checkpoint, self._resources, titles, measure)
            return {titles[title]: count for title, count in going.items()}, (note,)
        cost = self._pool.costs[what]
        if what == "channel_ratio":
            return for_cost(allocation, self._pool.scores, bounds, 1 - share, cost, CHANNELS), ()
        return for_cost(allocation, self._pool.scores, bounds, share, cost, NAMES[what], self._remedy), ()

    def _allocation(self, what: str) -> tuple[Allocation, Bounds]:
        """How much each group gives, and within which bounds: none gives more than its sensitivity was measured at."""
        step, titles = self._step, self._pool.titles
        if step.reconstruct:
            return cheapest, self._bounds
        if step.allocation != "sensitivity":
            return ALLOCATIONS[step.allocation], self._bounds
        path = beside(self._resources.source, "channels") if self._resources.source else None
        found = measure(self._checkpoint, self._resources, "channels", step.criterion, images=step.images, path=path)
        if unmeasured := [
            title for title, group in titles.items() if group in self._pool.scores and title not in found.parts
        ]:
            raise CompressError(
                f"the sensitivity of {', '.join(unmeasured[:3])} was not measured under that name: with other layers excluded, what one "
                "layer makes falls into other groups. Leave `exclude` out, or use another allocation."
            )
        most, cost = found.ratios[-1], self._pool.costs.get(what, self._pool.costs["macs"])
        if step.channel_ratio is not None and step.channel_ratio > most:
            raise CompressError(
                f"a channel ratio of {step.channel_ratio:g} was asked for, and {most:g} is the highest that the sensitivity "
                f"was measured at. Ask for less, measure higher ones with compress sensitivity, or use another allocation."
            )

        def allocation(scores: Scores, ratio: float) -> dict[Group, float]:
            sizes = {title: 1 - cost({group: group.channels}) for title, group in titles.items() if group in scores}
            given = shares(found, sizes, ratio, step.largest)
            return {titles[title]: share * titles[title].channels for title, share in given.items()}

        return allocation, Bounds(step.multiple, min(step.largest, most))

    def _by_latency(self, allocation: Allocation, bounds: Bounds, share: float) -> Measured:
        """The fewest channels without which the network is fast enough where it will run.

        Groups of one size take the last step together; then those take it alone that save most, until it is enough.
        """
        stopwatch, scores = Stopwatch(self._step, self._checkpoint, self._resources), self._pool.scores

        def counts(steps: int, within: Bounds = bounds) -> Counts:
            return for_ratio(allocation, scores, within, steps / STEPS)

        def smaller(steps: int, within: Bounds = bounds) -> Checkpoint:
            return self._without(counts(steps, within))

        def fast(candidate: Checkpoint) -> bool:
            return stopwatch(candidate).share.median <= share

        steps, timing = stopwatch.fewest(smaller, STEPS, share)
        if steps < STEPS or timing.share.median <= share:
            few, many, cost = counts(steps - 1), counts(steps), self._pool.costs["macs"]
            last = sorted((g for g in many if many[g] > few[g]), key=lambda g: cost(few | {g: many[g]}))

            def partly(number: int) -> Counts:
                return few | {group: many[group] for group in last[:number]}

            number, timing = stopwatch.fewest(lambda number: self._without(partly(number)), len(last), share)
            chosen = partly(number)
            going = {title: chosen[group] for title, group in self._pool.titles.items() if chosen.get(group)}
            return going, stopwatch.words(timing)
        finer = [number for number in FINER if number < bounds.round_to]
        multiple = next((number for number in finer if fast(smaller(STEPS, Bounds(number, bounds.largest)))), None)
        blocks, usual = self._blocks(), type(self._step).model_fields["largest"].default
        remedies = [f"round_to {multiple} reaches it"] * bool(multiple)
        if not multiple and bounds.largest < usual and fast(smaller(STEPS, Bounds(bounds.round_to, usual))):
            remedies.append(f"largest {usual:g} reaches it")
        if blocks and fast(without(self._checkpoint, blocks, self._resources)):
            remedies.append(f"{self._step.as_blocks} reaches it")
        nearest = min(0.99, math.ceil(timing.share.high * 100) / 100)
        raise CompressError(
            f"a share of {share:g} of the time was asked for, and {timing.share.median:.3f} is the least there is with channels in "
            f"multiples of {bounds.round_to} and at most {bounds.largest:.0%} of a group removed: "
            f"{'; '.join(remedies) or f'no other multiple, larger share or removing blocks reaches it, ask for {nearest:.2f}'}."
        )

    def _remedy(self) -> str:
        """What else reaches a share of a cost that channels within these bounds do not, or might; "" for nothing."""
        blocks, network, (what, share) = self._blocks(), self._pool.network, self._step.goal
        cost = cost_in(what, self._checkpoint.architecture.input_shape)
        by_blocks = bool(blocks) and cost(bypass(twin(network), blocks)) / cost(network) <= allowed(share)
        ways = [f"{self._step.as_blocks} reaches it"] * by_blocks
        if self._bounds.largest < self._step.largest:
            ways.append("another allocation, or higher ratios measured with compress sensitivity, may reach it")
        return "; ".join(ways)

    def _blocks(self) -> tuple[str, ...]:
        """The residual blocks of a network that can be traced; none of another."""
        try:
            return find_blocks(self._pool.network, self._checkpoint.architecture.input_shape, self._step.exclude)[0]
        except CompressError:
            return ()


def _architecture(checkpoint: Checkpoint, narrowed: nn.Module, going: Iterable[str]) -> Architecture:
    """What a checkpoint's network is once the layers in `going` have the size they have in `narrowed`."""
    widths = {layer: size_of(narrowed.get_submodule(layer)) for layer in going}
    architecture = checkpoint.architecture
    return dataclasses.replace(architecture, widths={**architecture.widths, **widths})
