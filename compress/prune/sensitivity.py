"""How much a network suffers when one part of it alone gives up some of its channels or weights.

The measurement is a document beside the checkpoint, written after every part, so that a kill loses at most one.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress import document
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.data.fits import fits
from compress.data.normalise import normalise
from compress.data.splits import LearningData, shuffled
from compress.errors import CompressError, Refusal, UsageError
from compress.pipeline import UNFOLDED, UNPREPARED, UNQUANTIZED, Resources
from compress.prune import weights
from compress.prune.criteria import score_groups
from compress.prune.groups import Group, find_groups, lost, titled
from compress.prune.narrow import remove, twin
from compress.prune.zeroable import layers_to_zero, score_weights, weight_of
from compress.sensitivity import FORMAT, KIND, Sensitivity, Structure

IMAGES, BATCH = 1024, 256
RATIOS: dict[Structure, tuple[float, ...]] = {
    "channels": (0.125, 0.25, 0.5, 0.75, 0.875),
    "weights": (0.5, 0.7, 0.8, 0.9, 0.95),
}
"""The shares each part gives up, where none are named."""
CRITERION: dict[Structure, str] = {"channels": "l2", "weights": "magnitude"}
"""What decides which go first, where nothing else is named."""
Cut = Callable[[float], nn.Module]
"""The network when one part of it has given up a share."""
Cuts = tuple[dict[str, Cut], tuple[Refusal, ...]]
QUESTION = ("checkpoint", "data", "structure", "criterion", "ratios", "images", "seed")
"""The fields of a `Sensitivity` that say what was asked; the others are the answer."""
LEVEL = 1e-12
"""A cost so small that it only spreads what goes over parts that lose nothing."""


def measure(
    checkpoint: Checkpoint,
    resources: Resources,
    structure: Structure,
    criterion: str,
    *,
    ratios: Sequence[float] = (),
    images: int = IMAGES,
    path: Path | None = None,
) -> Sensitivity:
    """Have each part of a network alone give up shares of itself, what is worth least first, and see what is lost.

    A part is a group of channels, or a layer's weights. With a `path`, go on with the document found there and keep
    it up to date. Without `ratios` they are those of that document, or `RATIOS`. Raises UsageError where the document
    answers another question, CompressError where the network has nothing to give.
    """
    kept = document.read(path, KIND, FORMAT, Sensitivity) if path is not None and path.exists() else None
    asked = _ratios(ratios or (kept.ratios if kept else RATIOS[structure]))
    for condition in (UNFOLDED, UNQUANTIZED, UNPREPARED):
        condition.require(checkpoint, "sensitivity")
    data = resources.need_data("sensitivity")
    fits(data.spec, checkpoint.architecture, checkpoint.dataset)
    network = build(checkpoint, resources.user).to(resources.device)
    cuts, refusals = CUTS[structure](checkpoint, network, criterion, resources, images)
    if not cuts:
        raise CompressError(
            f"none of this network's {structure} can go: {'; '.join(f'{r.layer}: {r.reason}' for r in refusals[:3])}."
        )
    figure = _Figure(network, data, images, resources, by_distance=checkpoint.trained_on == "all")
    found = Sensitivity(
        checkpoint.fingerprint,
        data.spec.digest,
        structure,
        criterion,
        asked,
        len(figure.labels),
        resources.seed,
        "distance" if figure.by_distance else "top1",
        figure(network),
        {},
        refusals,
    )
    if path is not None and kept is not None:
        found = _continued(path, kept, found)
    for place, (part, cut) in enumerate(cuts.items()):
        if part in found.parts:
            continue
        figures: list[float] = []
        for number, ratio in enumerate(found.ratios, place * len(found.ratios) + 1):
            figures.append(figure(cut(ratio)))
            words = f"{part} without {ratio:.1%}: {figures[-1]:.3g}"
            resources.progress("sensitivity", number, len(cuts) * len(found.ratios), words)
        found = dataclasses.replace(found, parts={**found.parts, part: tuple(figures)})
        if path is not None:
            document.write(path, KIND, FORMAT, found)
    return found


class _Figure:
    """What a network's answers to some validation images are worth, next to those of the untouched one."""

    def __init__(
        self, network: nn.Module, data: LearningData, images: int, resources: Resources, by_distance: bool
    ) -> None:
        order = shuffled(len(data.validation), resources.seed)[:images]
        batches = list(data.validation.batches(BATCH, order))
        self.labels, self.by_distance = torch.cat([labels for _, labels in batches]), by_distance
        self._images, self._data, self._device = [pixels for pixels, _ in batches], data, resources.device
        self._whole = self._answers(network)
        if not self._whole.any():
            raise CompressError(
                "the network answers every image with zeros, so there is nothing to lose. Give a trained one."
            )

    def __call__(self, network: nn.Module) -> float:
        answers = self._answers(network)
        if self.by_distance:
            return float((answers - self._whole).norm() / self._whole.norm())
        return 100 * float((answers.argmax(1) == self.labels).double().mean())

    def _answers(self, network: nn.Module) -> Tensor:
        with torch.inference_mode():
            answers = [
                network(normalise(pixels, self._data.spec.preprocessing).to(self._device)).cpu()
                for pixels in self._images
            ]
        if not all(logits.isfinite().all() for logits in answers):
            raise CompressError(
                "the network's logits are NaN or infinite. Go back to the last checkpoint that answers."
            )
        return torch.cat(answers)


def _groups(checkpoint: Checkpoint, network: nn.Module, criterion: str, resources: Resources, images: int) -> Cuts:
    """A cut for each group of channels, called by the layer that makes them; where that makes several, by number too."""
    groups, refused = find_groups(network, checkpoint.architecture.input_shape)
    scores, unscored = score_groups(network, groups, criterion, resources, images)
    return {
        name: partial(_without_channels, network, group, scores[group].sort(stable=True).indices.tolist())
        for name, group in titled(scores).items()
    }, refused + unscored


def _without_channels(network: nn.Module, group: Group, order: list[int], ratio: float) -> nn.Module:
    return remove(network, lost({group: order[: min(round(ratio * len(order)), len(order) - 1)]}))


def _layers(checkpoint: Checkpoint, network: nn.Module, criterion: str, resources: Resources, images: int) -> Cuts:
    """A cut for each layer with weights of its own."""
    layers, refused = layers_to_zero(network)
    scores = score_weights(network, layers, criterion, resources, images)
    return {name: partial(_without_weights, network, name, scores[name]) for name in layers}, refused


def _without_weights(network: nn.Module, layer: str, scores: Tensor, ratio: float) -> nn.Module:
    cut = twin(network)
    going = weights.lowest({layer: scores}, round(ratio * scores.numel()))[layer]
    changed = weight_of(network, layer).masked_fill(going, 0)
    cut.get_submodule(layer).register_parameter("weight", nn.Parameter(changed, requires_grad=False))
    return cut


CUTS: dict[Structure, Callable[[Checkpoint, nn.Module, str, Resources, int], Cuts]] = {
    "channels": _groups,
    "weights": _layers,
}


def _ratios(given: Sequence[float]) -> tuple[float, ...]:
    wrong = [ratio for ratio in given if not 0 < ratio < 1]
    if wrong:
        raise UsageError(f"a part cannot give up {wrong[0]:g} of itself: give ratios between 0 and 1.")
    return tuple(sorted(set(given)))


def _continued(path: Path, found: Sensitivity, asked: Sensitivity) -> Sensitivity:
    """What was measured of the same question before; raises UsageError where it was another."""
    differ = [name for name in QUESTION if getattr(found, name) != getattr(asked, name)]
    if differ:
        listed = "; ".join(f"{name} was {getattr(found, name)} and is {getattr(asked, name)}" for name in differ)
        raise UsageError(
            f"{path} holds another measurement: {listed}. Ask for the same again, or remove the file to measure anew."
        )
    return found


def shares(found: Sensitivity, sizes: Mapping[str, float], share: float, largest: float = 1.0) -> dict[str, float]:
    """The share each part gives so that `share` of all goes and the costs of all parts sum to the least.

    A part's cost is its harm, squared where that is a distance: errors of their own add up in squares. Between the
    ratios measured it is taken as a line, and it never falls; of each curve the lower convex hull counts, so the
    pieces with the least cost per size go first. `sizes` maps each part to how much it has. No part gives more
    than the highest ratio measured, or `largest`; where that is not enough, each gives all it may.
    """
    most = min(largest, found.ratios[-1])
    steps = np.array([0.0, *(ratio for ratio in found.ratios if ratio < most), most])
    power = 2 if found.measure == "distance" else 1
    pieces: list[tuple[float, str, float]] = []
    for part, size in sizes.items():
        curve = np.maximum.accumulate([0.0, *found.harm(part)]) ** power
        costs = np.interp(steps, [0.0, *found.ratios], curve) + LEVEL * size * steps**2
        hull = _lower_hull(list(zip(steps.tolist(), costs.tolist(), strict=True)))
        pieces += [((c2 - c1) / ((s2 - s1) * size), part, s2 - s1) for (s1, c1), (s2, c2) in pairwise(hull)]
    given, left = dict.fromkeys(sizes, 0.0), share * sum(sizes.values())
    for _, part, width in sorted(pieces):
        taken = min(width, max(0.0, left) / sizes[part])  # what is left may be rounded to just below nothing
        given[part] += taken
        left -= taken * sizes[part]
    return given


def _lower_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of some points, ordered by x, that no line between two others passes below. (Andrew's monotone chain.)"""
    hull: list[tuple[float, float]] = []
    for x, y in points:
        while len(hull) > 1 and (y - hull[-1][1]) * (hull[-1][0] - hull[-2][0]) <= (hull[-1][1] - hull[-2][1]) * (
            x - hull[-1][0]
        ):
            hull.pop()
        hull.append((x, y))
    return hull
