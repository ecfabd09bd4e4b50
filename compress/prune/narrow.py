"""Layers with fewer channels: cut to the channels they keep, or to a size alone, ready for weights to be loaded.

A layer that works on its channels in blocks (a grouped or depthwise convolution, a group norm) loses whole
blocks and keeps their size, so that (inputs, outputs) says everything about what it became.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from compress.errors import CompressError, nearest

Lost = tuple[Sequence[int], Sequence[int]]
"""The input and the output channels a layer loses, as indices."""

ANOTHER = "The checkpoint belongs to another network, or was edited."


@dataclass(frozen=True)
class Layout:
    """How a kind of layer holds its channels.

    `axes` gives, for each tensor, the axis its input and its output channels lie on; `counts` the attributes
    that say how many inputs and outputs there are; `blocks` the one that says how many blocks they form.
    """

    axes: Mapping[str, tuple[int | None, int | None]]
    counts: tuple[str, str]
    blocks: str | None = None


PER_CHANNEL = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (None, 0))
LAYOUTS: dict[type[nn.Module], Layout] = {
    _ConvTransposeNd: Layout({"weight": (0, 1), "bias": (None, 0)}, ("in_channels", "out_channels"), "groups"),
    _ConvNd: Layout({"weight": (1, 0), "bias": (None, 0)}, ("in_channels", "out_channels"), "groups"),
    nn.Linear: Layout({"weight": (1, 0), "bias": (None, 0)}, ("in_features", "out_features")),
    _BatchNorm: Layout(PER_CHANNEL, ("num_features", "num_features")),
    _InstanceNorm: Layout(PER_CHANNEL, ("num_features", "num_features")),
    nn.GroupNorm: Layout(PER_CHANNEL, ("num_channels", "num_channels"), "num_groups"),
    nn.PReLU: Layout(PER_CHANNEL, ("num_parameters", "num_parameters")),
}


def layout_of(layer: nn.Module) -> Layout | None:
    """How `layer` holds its channels, or None for a layer that cannot be narrowed."""
    return next((layout for kind, layout in LAYOUTS.items() if isinstance(layer, kind)), None)


def per_channel(layout: Layout) -> bool:
    """Whether a layer works on each channel by itself: what goes in at one place comes out there."""
    return layout.counts[0] == layout.counts[1]


def size_of(layer: nn.Module) -> tuple[int, int]:
    """The (inputs, outputs) of a layer that has a layout."""
    layout = layout_of(layer)
    assert layout is not None, f"{type(layer).__name__} has no layout"
    return getattr(layer, layout.counts[0]), getattr(layer, layout.counts[1])


def blocks_of(layer: nn.Module) -> int:
    """Into how many blocks a layer divides its channels; 1 where all work together."""
    layout = layout_of(layer)
    return getattr(layer, layout.blocks) if layout and layout.blocks else 1


def narrow(network: nn.Module, widths: Mapping[str, tuple[int, int]]) -> nn.Module:
    """Give `network` the structure of a pruned one, in place: `widths` maps a layer to its (inputs, outputs).

    What the tensors hold means nothing until weights are loaded; their dtype and device stay.
    Raises CompressError for a layer that does not exist, cannot be narrowed, or cannot have that size.
    """
    layers = dict(network.named_modules(remove_duplicate=False))
    for name, (inputs, outputs) in widths.items():
        if name not in layers:
            near = nearest(name, layers)
            raise CompressError(
                f"a width is given for the layer {name!r}, which this network does not have"
                f"{f' (it has {near[0]})' if near else ''}. {ANOTHER}"
            )
        if layout_of(layers[name]) is None:
            raise CompressError(
                f"a width is given for {name}, and a {type(layers[name]).__name__} cannot be narrowed. {ANOTHER}"
            )
        sizes = size_of(layers[name])
        if not (1 <= inputs <= sizes[0] and 1 <= outputs <= sizes[1]):
            raise _misfit(name, sizes, (inputs, outputs))
        _cut(name, layers[name], torch.arange(inputs), torch.arange(outputs))
    return network


def remove(network: nn.Module, lost: Mapping[str, Lost]) -> nn.Module:
    """The network without the channels each layer loses, the others with the weights they had.

    Tensors of layers that lose nothing are shared with `network`, which is left as it is.
    """
    narrowed = twin(network)
    for name, (inputs, outputs) in lost.items():
        layer = narrowed.get_submodule(name)
        sizes = size_of(layer)
        _cut(name, layer, _without(sizes[0], inputs), _without(sizes[1], outputs))
    return narrowed


def twin(network: nn.Module, tensor: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> nn.Module:
    """A copy of a network's modules around the same tensors, or what `tensor` makes of each.

    Replacing a tensor of the copy leaves the original alone; changing it in place does not.
    """
    unregistered = (
        value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)
    )
    held = (*network.parameters(), *network.buffers(), *unregistered)
    return copy.deepcopy(network, {id(old): tensor(old) for old in held})


def _without(size: int, lost: Sequence[int]) -> Tensor:
    kept = torch.ones(size, dtype=torch.bool)
    kept[list(lost)] = False
    return kept.nonzero().flatten()


def _misfit(name: str, sizes: tuple[int, int], left: tuple[int, int]) -> CompressError:
    return CompressError(f"{name} has {sizes} (inputs, outputs) and cannot be narrowed to {left}. {ANOTHER}")


def _cut(name: str, layer: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    """Leave a layer, in place, only the `inputs` and `outputs` given as indices.

    Raises CompressError where the layer, called `name`, has fewer, or would be left with parts of blocks.
    """
    layout = layout_of(layer)
    assert layout is not None, f"{name} has no layout"
    sides, sizes, blocks = (inputs, outputs), size_of(layer), blocks_of(layer)
    left = (len(inputs), len(outputs))
    if any(not 1 <= now <= size for now, size in zip(left, sizes, strict=True)):
        raise _misfit(name, sizes, left)
    remaining = [now * blocks // size for now, size in zip(left, sizes, strict=True)]
    whole = all(number * size == now * blocks for number, now, size in zip(remaining, left, sizes, strict=True))
    split = blocks > 1 and not (whole and remaining[0] == remaining[1])
    if split or (per_channel(layout) and left[0] != left[1]):
        raise CompressError(
            f"{name} has {sizes} (inputs, outputs) in {blocks} blocks and cannot be narrowed to {left}: "
            f"it loses the same channels, in whole blocks, on both sides. {ANOTHER}"
        )
    for tensor_name, axes in layout.axes.items():
        old = getattr(layer, tensor_name, None)
        tensor = old
        # Outputs first: they mostly lie in whole rows, which copy faster and leave less to pick inputs from.
        for axis, kept, size in reversed(list(zip(axes, sides, sizes, strict=True))):
            # An axis shorter than the channels it stands for runs within a block, and blocks keep their size.
            if tensor is not None and axis is not None and tensor.shape[axis] == size and len(kept) < size:
                tensor = tensor.detach().index_select(axis, kept.to(tensor.device))
        if tensor is not old and tensor is not None:
            setattr(
                layer, tensor_name, nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor
            )
    for attribute, count in zip(layout.counts, left, strict=True):
        setattr(layer, attribute, count)
    if layout.blocks:
        setattr(layer, layout.blocks, remaining[0] if blocks > 1 else 1)
