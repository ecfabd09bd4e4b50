"""What a group's channels are worth to the layers that read them, measured on images."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import CompressError, Refusal
from compress.progress import Progress, silent
from compress.prune.channels import tensors
from compress.prune.groups import Group, Member
from compress.prune.least_squares import Elimination, Moments, Reader, eliminate
from compress.prune.narrow import blocks_of, layout_of, per_channel, twin
from compress.prune.rows import assign, empty_moments, rows, unsolvable

PROBE = 128
"""On how many images the damage to the network's answers is measured, or on half the first batch where that is fewer."""


def elimination_scores(
    network: nn.Module, groups: Sequence[Group], batches: Iterable[Tensor], seed: int = 0, progress: Progress = silent
) -> tuple[dict[Group, Tensor], tuple[Refusal, ...]]:
    """What dropping each channel in its turn adds to the error of the network's answers, and the groups it is not known for.

    Channels are dropped in the order in which the layers that read them make up for it best (`eliminate`); the
    last one of a group is worth infinitely much. How much of their error comes through to the answers is measured
    once for each group, with half of it gone. Memory does not grow with the number of batches. Raises CompressError
    where the network answers with NaN or infinity.
    """
    readers, refusals = {}, []
    for group in groups:
        found = [member for member in group.members if _reads(network, member)]
        reason = _unsolvable(network, found)
        if reason:
            refusals.append(Refusal(group.name, reason))
        else:
            readers[group] = found
    moments, probe = _measure(network, {member.layer for found in readers.values() for member in found}, batches, seed)
    scores = {}
    with torch.no_grad():
        answers = network(probe)
        for done, (group, members) in enumerate(readers.items()):
            order = eliminate(
                [Reader.of(moments[member.layer]) for member in members],
                [_pieces(network, member) for member in members],
            )
            harm = (_halved(network, members, order)(probe) - answers).square().mean().item()
            scores[group] = _worth(order, harm)
            progress("prune", done + 1, len(readers), "groups ranked")
    return scores, tuple(refusals)


def _reads(network: nn.Module, member: Member) -> bool:
    """Whether a member is a layer that mixes a group's channels, rather than handing them on."""
    layer = network.get_submodule(member.layer)
    layout = layout_of(layer)
    return member.side == "inputs" and layout is not None and not per_channel(layout) and blocks_of(layer) == 1


def _unsolvable(network: nn.Module, readers: Sequence[Member]) -> str | None:
    """Why the order in which a group's channels go cannot be known."""
    reasons = ((reader.layer, unsolvable(network.get_submodule(reader.layer))) for reader in readers)
    found = (f"{layer}, which reads it, {reason}" for layer, reason in reasons if reason)
    return next(found, None) if readers else "no layer that mixes channels reads it"


def _measure(
    network: nn.Module, readers: set[str], batches: Iterable[Tensor], seed: int
) -> tuple[dict[str, Moments], Tensor]:
    """The moments of each reader's inputs and outputs over all batches but the first few images, and those."""
    moments = {name: empty_moments(network.get_submodule(name)) for name in sorted(readers)}
    generator = torch.Generator().manual_seed(seed)

    def note(found: Moments, layer: nn.Module, args: Any, kwargs: Any, answered: Tensor) -> None:
        found.add(*rows(layer, tensors((args, kwargs))[0], answered, generator))

    probe = torch.empty(0)
    with ExitStack() as hooks, torch.no_grad():
        for name, found in moments.items():
            hook = network.get_submodule(name).register_forward_hook(partial(note, found), with_kwargs=True)
            hooks.callback(hook.remove)
        for images in batches:
            if not len(probe):
                apart = min(PROBE, len(images) // 2)
                probe, images = images[: max(1, apart)], images[apart:]
            if not network(images).isfinite().all():
                raise CompressError(
                    "the network's logits are NaN or infinite on calibration images. Go back to the last checkpoint that answers."
                )
    return moments, probe


def _pieces(network: nn.Module, member: Member) -> Tensor:
    """Which of a reader's inputs each channel is, (channels, k)."""
    kernel = network.get_submodule(member.layer).get_parameter("weight")[0, 0].numel()
    return (torch.tensor(member.places)[:, :, None] * kernel + torch.arange(kernel)).flatten(1)


def _halved(network: nn.Module, readers: Sequence[Member], found: Elimination) -> nn.Module:
    """The network deaf to half a group's channels, its readers making up for it as well as they can."""
    halved = twin(network)
    for member, weights in zip(readers, found.halfway, strict=True):
        layer = halved.get_submodule(member.layer)
        layer.register_parameter("weight", nn.Parameter(torch.empty_like(layer.get_parameter("weight"))))
        layer.register_parameter("bias", nn.Parameter(assign(layer, weights[None])))
    return halved


def _worth(found: Elimination, harm: float) -> Tensor:
    """What each channel adds to the error of the answers, (channels,); in the order of elimination it never falls."""
    errors = torch.tensor([0.0, *found.errors], dtype=torch.float64)
    scale = harm / max(float(errors[len(errors) // 2]), 1e-9 * float(errors[-1]), 1e-30)  # half may go for nothing
    worth = torch.full((len(errors),), torch.inf, dtype=torch.float64)
    worth[list(found.order)] = (errors.diff() * scale).cummax(0).values
    return worth
