"""A narrowed network's layers solved again, one after the other, so that each answers as the whole network's did.

Both networks are followed call by call on the same images. At every convolution and linear layer the weights
are solved for by least squares on what the narrowed network hands it by then, so that a layer makes up for what
the ones before it lost; where its answer is added to another, as at the end of a residual block, also for what
is missing in that one. No label is used, and nothing is trained.
"""

import copy
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.errors import CompressError, Refusal
from compress.progress import Progress, silent
from compress.prune.least_squares import fit
from compress.prune.narrow import Lost, remove, size_of
from compress.prune.playback import Playback
from compress.prune.rows import assign, empty_moments, matrix, rows, unsolvable
from compress.trace import module_of

aten = torch.ops.aten
LAYERS = {aten.conv2d.default, aten.conv2d.padding, aten.linear.default}
HELD_OUT = 4
"""One in so many images of each batch tells how far the others are to be trusted."""
FLAT = 1e-3
"""A channel that a batch norm scales by less than this share of its largest cannot pass on what is missing elsewhere."""


def refit(
    network: nn.Module,
    lost: Mapping[str, Lost],
    input_shape: tuple[int, int, int],
    batches: Iterable[Tensor],
    *,
    exclude: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[nn.Module, tuple[Refusal, ...]]:
    """`remove(network, lost)` with its layers solved again in call order, to answer as those of `network` on `batches`.

    Also returns the layers that kept their weights, and why; `exclude` names some, or modules with all layers in
    them. Activations wait on disk between layers: memory grows with the size of a batch, not with their number.
    Raises CompressError where torch.export cannot follow the network.
    """
    narrowed = copy.deepcopy(remove(network, lost))
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        whole = Playback(network, input_shape, Path(folder, "whole"))
        less = Playback(narrowed, input_shape, Path(folder, "less"))
        if [node.target for node in whole.calls] != [node.target for node in less.calls]:
            raise CompressError(
                "the network makes other calls once it has fewer channels, so its layers cannot be solved again. "
                "Leave `reconstruct` out."
            )
        for images in batches:
            whole.show(images)
            less.show(images)
        places = [place for place, call in enumerate(less.calls) if call.target in LAYERS]
        uses = Counter(_name(less.calls[place]) for place in places)
        for done, place in enumerate(places):
            name = _name(less.calls[place])
            reason = _refused(narrowed, name, uses[name], exclude)
            if reason:
                refused[name] = f"not solved again: it {reason}"
            else:
                layer, chance = narrowed.get_submodule(name), torch.Generator().manual_seed(seed + place)
                _solve(layer, place, _kept(layer, lost.get(name, ((), ()))), whole, less, chance)
            progress("prune", done + 1, len(places), "layers solved again")
    return narrowed, tuple(Refusal(name, reason) for name, reason in refused.items())


def _name(call: fx.Node) -> str:
    """The layer whose weight a call reads, or the call's own name where that is of no layer."""
    return module_of(call.args[1]) or call.name


def _refused(network: nn.Module, name: str, uses: int, exclude: Sequence[str]) -> str | None:
    """Why a layer keeps its weights, or None where it is solved for."""
    if any(name == prefix or name.startswith(f"{prefix}.") for prefix in exclude):
        return "was excluded"
    if uses > 1:
        return f"is called {uses} times, and each call would want its own weights"
    layers = dict(network.named_modules())
    return unsolvable(layers[name]) if name in layers else "is no module of its own"


def _kept(layer: nn.Module, lost: Lost) -> Tensor:
    """Which of the whole network's outputs a narrowed layer still has, as indices."""
    kept = torch.ones(size_of(layer)[1] + len(lost[1]), dtype=torch.bool)
    kept[list(lost[1])] = False
    return kept.nonzero().flatten()


def _solve(
    layer: nn.Module, place: int, kept: Tensor, whole: Playback, less: Playback, chance: torch.Generator
) -> None:
    """Let the layer called at `place` answer as the whole network's, in place; one that does so already is left alone."""
    call, axis = less.calls[place], 1 if isinstance(layer, nn.Conv2d) else -1
    norm, other = _joined(call, axis)
    moments, unseen = empty_moments(layer), empty_moments(layer)
    for batch in range(less.batches):
        full, held = whole.play(batch, place + 1), less.play(batch, place)
        read, wanted = held[call.args[0].name], full[call.name].index_select(axis, kept)
        missing = torch.zeros(())
        if getattr(held.get(other), "shape", None) == wanted.shape:
            missing = full[other].index_select(axis, kept) - held[other]
        if batch == 0 and torch.equal(layer(read), wanted) and not missing.any():
            return
        x, y = rows(layer, read, wanted + missing / _scale(less, norm), chance)
        held_out = x.shape[1] // HELD_OUT
        moments.add(x[:, held_out:], y[:, held_out:])
        unseen.add(x[:, :held_out], y[:, :held_out])
    own = getattr(layer, "bias", None)
    bias = assign(layer, fit(moments, unseen, matrix(layer), bias=own is not None or norm is not None))
    if own is not None:
        own.copy_(bias)
    elif norm is not None:
        mean = norm.args[3]
        assert isinstance(mean, fx.Node)
        less.tensor(mean).sub_(bias)


def _joined(call: fx.Node, axis: int) -> tuple[fx.Node | None, str]:
    """The batch norm that alone reads a layer's answer, and the name of what alone that is added to; "" where there is none."""
    norm = _only_reader(call, aten.batch_norm.default)
    if norm and (axis % call.meta["val"].dim() != 1 or not _held(norm.args[3])):
        return None, ""
    last = norm or call
    add = _only_reader(last, aten.add.Tensor) or _only_reader(last, aten.add_.Tensor)
    other = add.args[1 if add.args[0] is last else 0] if add and not add.kwargs else None  # kwargs: a factor on it
    return norm, other.name if isinstance(other, fx.Node) and other is not last else ""


def _only_reader(node: fx.Node, target: object) -> fx.Node | None:
    """The only call that reads a node, if it is of `target`."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 and readers[0].target is target else None


def _held(tensor: object) -> bool:
    """Whether a call's argument is a tensor of the network that no other call reads."""
    return isinstance(tensor, fx.Node) and tensor.op == "get_attr" and len(tensor.users) == 1


def _scale(less: Playback, norm: fx.Node | None) -> Tensor:
    """By what a batch norm multiplies each channel, infinite where it all but silences one; one without a norm."""
    if norm is None:
        return torch.ones(())
    args: list[Any] = [less.tensor(each) if isinstance(each, fx.Node) else each for each in norm.args[1:]]
    weight, _, _, variance, _, _, eps = args[:7]
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    scale = torch.where(scale.abs() < FLAT * scale.abs().max(), torch.inf, scale)
    return scale.reshape(-1, *[1] * (norm.meta["val"].dim() - 2))
