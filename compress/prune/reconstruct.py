"""Pruning without training: what goes and what is left are both decided by the network's own answers to unlabelled images."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.errors import Refusal
from compress.pipeline import Resources
from compress.prune.allocation import Cost, Scores, lowest_share
from compress.prune.calibration import batches
from compress.prune.elimination import elimination_scores
from compress.prune.groups import Group
from compress.prune.narrow import Lost, remove
from compress.prune.refit import refit


def rank(
    network: nn.Module, groups: Sequence[Group], cost: Cost | None, resources: Resources, images: int
) -> tuple[dict[Group, Tensor], tuple[Refusal, ...]]:
    """What dropping each channel in its turn adds to the error of the answers, for each unit of `cost` it saves if there is one."""
    shown = _batches(resources, images)
    scores, refusals = elimination_scores(network, groups, shown, resources.seed, resources.progress)
    if cost is not None:
        scores = {group: own / (cost({}) - cost({group: 1})) for group, own in scores.items()}
    return scores, refusals


def cheapest(scores: Scores, ratio: float) -> dict[Group, float]:
    """An allocation: the lowest scores of all groups together, as they are; what is worth infinitely much stays."""
    return lowest_share({group: own[own.isfinite()] for group, own in scores.items()}, ratio)


def reconstruct(
    network: nn.Module,
    lost: Mapping[str, Lost],
    input_shape: tuple[int, int, int],
    resources: Resources,
    images: int,
    exclude: Sequence[str],
) -> tuple[nn.Module, tuple[Refusal, ...], str]:
    """The network without the channels each layer loses, the others solved again; the layers that were not, and what it gained."""
    solved, refusals = refit(
        network,
        lost,
        input_shape,
        _batches(resources, images),
        exclude=exclude,
        seed=resources.seed,
        progress=resources.progress,
    )
    seen = next(_batches(resources, images))
    with torch.no_grad():
        whole = network(seen)
        before, after = ((narrowed(seen) - whole).norm() / whole.norm() for narrowed in (remove(network, lost), solved))
    gained = (
        f"layers solved again on up to {images} images: on {len(seen)} of them the logits are {after:.3f} of their size "
        f"away from those of the whole network, and were {before:.3f} before"
    )
    return solved, refusals, gained


def _batches(resources: Resources, images: int) -> Iterator[Tensor]:
    """Calibration images on the CPU, where all of this is computed: the sums need float64 and much memory."""
    return batches(dataclasses.replace(resources, device="cpu"), images, "prune")
