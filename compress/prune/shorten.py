"""Removing whole residual blocks: which ones a network can do without, and the network that is left."""

import dataclasses
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compress.build import build
from compress.checkpoint import Checkpoint
from compress.errors import CompressError
from compress.macs import macs, parameters
from compress.pipeline import Change, Resources
from compress.progress import Progress, silent
from compress.prune.allocation import allowed
from compress.prune.blocks import bypass
from compress.prune.calibration import batches
from compress.prune.decision import Measured, decided
from compress.prune.latency import Stopwatch
from compress.prune.narrow import twin
from compress.prune.recalibrate import recalibrated
from compress.prune.residuals import find_blocks
from compress.prune.schedules import SCHEDULES

if TYPE_CHECKING:
    from compress.prune.step import Prune

RANKED_ON = 128
"""Images on which blocks are told apart: all their logits count, so few are enough."""
NAMES = {"macs": "MACs", "parameters": "parameters", "latency": "time"}
"""What each target is a share of."""


class Blocks:
    """Removes blocks of a checkpoint, or of what training makes of it between rounds.

    Which ones is decided once, on the checkpoint. Raises CompressError where there are none or the target is out of reach.
    """

    def __init__(self, step: "Prune", checkpoint: Checkpoint, resources: Resources) -> None:
        self._step, self._resources = step, resources
        network = build(checkpoint, resources.user)
        shape = checkpoint.architecture.input_shape
        found, self._refusals = find_blocks(network, shape, step.exclude)
        if not found:
            reasons = "; ".join(f"{refusal.layer}: {refusal.reason}" for refusal in self._refusals[:3])
            raise CompressError(
                f"no residual block of this network can be removed: {reasons or 'it adds nothing to what its modules are given'}. "
                "Remove channels instead."
            )
        what, share = step.goal
        order = ranked(
            network.to(resources.device), found, list(batches(resources, RANKED_ON, "prune")), resources.progress
        )
        if what == "latency":
            going, note = decided(
                step, checkpoint, resources, found, lambda: self._by_latency(checkpoint, list(order), share)
            )
            self._names = list(going)
        else:
            self._names, note = _by_cost(network, found, order, share, what, shape)
        self._notes: tuple[str, ...] = (
            f"{len(self._names)} of {len(found)} blocks removed: {', '.join(self._names)}",
            note,
        )

    def __call__(self, checkpoint: Checkpoint, done: float) -> Change:
        """The checkpoint without the blocks that are due, its batch norms measured again."""
        due = round(SCHEDULES[self._step.schedule](0, len(self._names), done))
        gone = set(checkpoint.architecture.removed)
        shorter = without(checkpoint, [name for name in self._names[:due] if name not in gone], self._resources)
        network = build(shorter, self._resources.user)
        notes = self._notes
        if self._step.recalibrate:
            notes = (*notes, recalibrated(network, self._resources, self._step.images))
        return Change(shorter.architecture, network.state_dict(), self._refusals, notes)

    def _by_latency(self, checkpoint: Checkpoint, order: Sequence[str], share: float) -> Measured:
        """The fewest blocks, from the first of `order`, without which the network is fast enough."""
        stopwatch = Stopwatch(self._step, checkpoint, self._resources)
        count, timing = stopwatch.fewest(
            lambda count: without(checkpoint, order[:count], self._resources), len(order), share
        )
        if count == len(order) and timing.share.median > share:
            raise _unreachable(share, "latency", timing.share.median, count)
        return dict.fromkeys(order[:count], 1), stopwatch.words(timing)


def without(checkpoint: Checkpoint, names: Sequence[str], resources: Resources) -> Checkpoint:
    """A checkpoint without some blocks, in which nothing else has changed."""
    architecture = checkpoint.architecture
    network = bypass(build(checkpoint, resources.user), names)
    layers = dict(network.named_modules(remove_duplicate=False))
    return dataclasses.replace(
        checkpoint,
        architecture=dataclasses.replace(
            architecture,
            removed=(*architecture.removed, *names),
            widths={layer: size for layer, size in architecture.widths.items() if layer in layers},
            masked=tuple(layer for layer in architecture.masked if layer in layers),
        ),
        weights=network.state_dict(),
    )


def cost_in(what: str, input_shape: tuple[int, int, int]) -> Callable[[nn.Module], int]:
    """How many MACs, or parameters, a network has."""
    return parameters if what == "parameters" else partial(macs, input_shape=input_shape)


def ranked(
    network: nn.Module, blocks: Sequence[str], images: Sequence[Tensor], progress: Progress = silent
) -> Iterator[str]:
    """Blocks in the order to remove them: each time the one without which the logits are nearest to those of the whole network.

    Nearest by |f' - f| / |f| over all logits. A block's distance rather grows when others go, so one measured earlier is a bound
    from below: it is measured again only when it comes first.
    """
    whole = _answers(network, images)
    if not whole.any():
        raise CompressError(
            "the network answers every image with zeros, so there is nothing to lose. Give a trained one."
        )
    gone: list[str] = []
    line = [(0.0, -1, place) for place in range(len(blocks))]
    while line:
        _, when, place = heapq.heappop(line)
        if when == len(gone):
            gone.append(blocks[place])
            yield blocks[place]
        else:
            shorter = bypass(twin(network), [*gone, blocks[place]])
            distance = float((_answers(shorter, images) - whole).norm() / whole.norm())
            progress("blocks", len(gone), len(blocks), f"without {blocks[place]}: {distance:.3f}")
            heapq.heappush(line, (distance if math.isfinite(distance) else math.inf, len(gone), place))


def _answers(network: nn.Module, images: Iterable[Tensor]) -> Tensor:
    with torch.inference_mode():
        return torch.cat([network(shown).cpu() for shown in images])


def _by_cost(
    network: nn.Module,
    blocks: Sequence[str],
    order: Iterator[str],
    share: float,
    what: str,
    shape: tuple[int, int, int],
) -> tuple[list[str], str]:
    """The first blocks of `order`, one at least, without which a share `share` of a cost is left, or up to `allowed`."""
    cost = cost_in(what, shape)

    def left(names: Sequence[str]) -> float:
        return cost(bypass(twin(network), names)) / cost(network)

    if left(blocks) > allowed(share):
        raise _unreachable(share, what, left(blocks), len(blocks))
    names = [next(order)]
    while left(names) > allowed(share):
        names.append(next(order))
    return names, f"{left(names):.3f} of the {NAMES[what]} kept"


def _unreachable(share: float, what: str, least: float, count: int) -> CompressError:
    return CompressError(
        f"a share of {share:g} of the {NAMES[what]} was asked for, and {least:.3f} is the least there is without "
        f"{f'all {count} blocks' if count > 1 else 'the one block'} that can go: ask for {min(0.99, math.ceil(least * 100) / 100):.2f}, "
        "and prune channels of the result."
    )
