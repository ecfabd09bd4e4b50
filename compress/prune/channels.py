"""Which channels of a network's layers are one and the same, found by following a forward pass.

Every activation is shadowed by labels that say which channel each of its elements belongs to. A call that only
moves data (a view, a concatenation, a permutation) is made on the labels as well, so torch itself says where
each channel went. A call that combines activations element by element ties their labels. A call that mixes
channels, counts on their number, or is not known here, fixes the labels of what it reads, and says why.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from compress.errors import CompressError
from compress.prune.labels import axes, binds, lean, numbered, pairs, reduced, varies
from compress.prune.narrow import blocks_of, layout_of, per_channel, size_of

VIEWS = {"view", "_unsafe_view", "reshape"}
PARTS = {"slice", "select", "split", "split_with_sizes", "unbind"}
MOVES = VIEWS | PARTS | {"permute", "transpose", "t", "expand", "repeat", "flip", "roll", "unsqueeze", "squeeze", "cat"}
MOVES |= {"stack", "clone", "detach", "alias", "lift_fresh", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"}
"""Calls whose result holds elements of their arguments and nothing else."""
POINTWISE = {"hardswish", "hardswish_", "copy_", "_to_copy", "prelu", "_prelu_kernel"}
"""Element-by-element calls that torch does not tag as such."""
ALONG = {"_softmax", "_log_softmax", "cumsum"}
"""Calls that, like reductions, mix what lies along their `dim`."""
SPATIAL = re.compile(r"(?:pool|upsample|reflection_pad|replication_pad)\D*([123])d")
"""Pooling, resizing and padding treat each channel by itself; so many last dimensions are theirs."""
SHAPES = {"new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like", "empty_like", "full_like"}
"""Calls that read nothing of their argument but its shape."""


@dataclass(frozen=True)
class Channels:
    """The channels of every layer a forward pass went through, numbered so that equal numbers must go together.

    `inputs` and `outputs` map a layer, in the order of first calls, to one number per channel; `fixed` says
    of a number why its channels cannot be removed.
    """

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    fixed: Mapping[int, str]


def follow(network: nn.Module, images: Tensor) -> Channels:
    """Run `network`, in inference mode but for batch norms that may be measuring, and tell which channels belong together.

    Layers that only training uses, such as auxiliary classifiers, are followed in training mode, which
    touches running statistics: give a copy. Their own channels are fixed, those they read are not.
    """
    follower = _Follower(network)
    follower.run(network, images)
    inferring = set(follower.outputs)
    if unseen := follower.layers.keys() - inferring:
        network.train()
        for module in network.modules():
            if isinstance(module, _DropoutNd):
                module.eval()
        try:
            follower.run(network, images)
        except Exception as error:  # whatever the network's own code raises in training mode
            raise CompressError(
                f"inference never uses {', '.join(sorted(unseen)[:3])}, and training, which may, fails: "
                f"{type(error).__name__}: {error}. Make the network without these layers to prune it."
            ) from error
    for name in follower.outputs.keys() - inferring:
        follower.fix([follower.outputs[name]], "only training uses it")
    follower.keep_tied(network)
    return follower.channels()


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Shadows each call of a forward pass by one on labels; a layer that holds channels counts as one call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers = {
            name: layer
            for name, layer in network.named_modules()
            if layout_of(layer) and not (isinstance(layer, nn.PReLU) and layer.num_parameters == 1)  # one slope for all
        }
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self._parameters = {id(parameter): name for name, parameter in network.named_parameters()}
        self._labels = WeakTensorKeyDictionary()
        self._ties: list[Tensor] = []
        self._fixed: dict[int, str] = {}
        self._count = 0
        self._inside = 0

    def run(self, network: nn.Module, images: Tensor) -> None:
        """Follow one forward pass."""
        images = images.clone()
        self._labels[images] = self._constant("they are the network's inputs").expand(images.shape)
        with torch.no_grad(), self._hooks(), self:
            answers = tensors(network(images))
        self.fix([self._of(answer) for answer in answers], "they are the network's answers")

    def fix(self, labels: Iterable[Tensor], reason: str) -> Tensor:
        """Let none of `labels` be removed, for a reason; returns the label they are all tied to."""
        fixed = self._constant(reason)
        for read in labels:
            self._ties.append(pairs(read, fixed.expand(read.shape)))
        return fixed

    def keep_tied(self, network: nn.Module) -> None:
        """Fix the channels of tensors that belong to several modules: each would be left with one of its own."""
        owners: dict[int, list[str]] = defaultdict(list)
        for name, module in network.named_modules():
            for parameter in module.parameters(recurse=False):
                owners[id(parameter)].append(name)
        for name, layer in self.layers.items():
            layout = layout_of(layer)
            assert layout is not None
            for tensor, parameter in layer.named_parameters(recurse=False):
                others = [other for other in owners[id(parameter)] if other != name]
                for axis, side in zip(layout.axes.get(tensor, ()), (self.inputs, self.outputs), strict=False):
                    if others and axis is not None and name in side:
                        self.fix([side[name]], f"{name} shares its {tensor} with {others[0] or 'the network itself'}")

    def channels(self) -> Channels:
        """What was found, with one number for all labels that were tied."""
        number = numbered(self._ties, self._count)
        fixed: dict[int, str] = {}
        for label, reason in self._fixed.items():
            fixed.setdefault(int(number[label]), reason)
        inputs, outputs = (
            {name: tuple(number[labels].tolist()) for name, labels in side.items()}
            for side in (self.inputs, self.outputs)
        )
        return Channels(inputs, outputs, fixed)

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make the call, and note what it did to the channels."""
        result = call(*args, **(kwargs or {}))
        if not self._inside:
            names = (place.name for place in call._schema.arguments)
            self._note(call, dict(zip(names, args, strict=False)) | (kwargs or {}), tensors(result))
        return result

    def _note(self, call: Any, arguments: dict[str, Any], results: list[Tensor]) -> None:
        name, sources = call.overloadpacket.__name__, tensors(arguments)
        read = [self._labels[source] for source in sources if source in self._labels]
        if not read or not results or name in SHAPES:
            return
        labels = self._shadow(call, name, arguments, sources, results[0].shape)
        if labels is None:
            fixed = self.fix(read, f"the forward pass mixes them, or counts on their number, in a call of {name!r}")
            labels = [fixed.expand(result.shape) for result in results]
        for result, shadow in zip(results, labels * len(results) if len(labels) == 1 else labels, strict=True):
            self._labels[result] = lean(shadow)

    def _shadow(
        self, call: Any, name: str, arguments: dict[str, Any], sources: Sequence[Tensor], shape: torch.Size
    ) -> list[Tensor] | None:
        """The labels of a call's results, or one for all; None where it does more than is known here."""
        first = self._of(sources[0])
        if name in MOVES:
            if name in PARTS and sources[0].shape != shape and varies(first, arguments.get("dim", 0)):
                return None
            shadows = tree_map_only(Tensor, lambda source: self._of(source).contiguous(), arguments)
            moved = [lean(labels) for labels in tensors(call(**shadows))]
            return None if name in VIEWS and axes(moved[0]) > axes(first) else moved
        if torch.Tag.pointwise in call.tags or name in POINTWISE:
            return self._combined(sources, shape)
        if torch.Tag.reduction in call.tags or name in ALONG:
            labels = reduced(first, arguments.get("dim"), shape)
        elif spatial := SPATIAL.search(name):
            labels = reduced(first, range(-int(spatial[1]), 0), shape)
        elif name == "constant_pad_nd":
            labels = reduced(first, range(-len(arguments["pad"]) // 2, 0), shape)
        else:
            return None
        return None if labels is None else [labels]

    def _combined(self, sources: Sequence[Tensor], shape: torch.Size) -> list[Tensor] | None:
        """The labels of an element-by-element call; None where no operand has the shape of the result."""
        whole = next((source for source in sources if source in self._labels and source.shape == shape), None)
        if whole is None:
            return None
        main: Tensor = self._labels[whole]
        for other in sources:
            if other is not whole and other.numel() > 1 and binds(main, self._of(other)):
                self._ties.append(pairs(main, self._of(other).expand(shape)))
        return [main]

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        """Note what every layer reads and answers."""
        with ExitStack() as stack:
            for name, layer in self.layers.items():
                enter = layer.register_forward_pre_hook(_aside(partial(self._enter, name)), with_kwargs=True)
                leave = layer.register_forward_hook(_aside(partial(self._leave, name)))
                stack.callback(enter.remove)
                stack.callback(leave.remove)
            yield

    def _enter(self, name: str, layer: nn.Module, args: Any, kwargs: Any) -> None:
        self._inside += 1
        labels = self._of(tensors((args, kwargs))[0])
        axis = axis_of(layer, labels)
        if any(varies(labels, other) for other in range(labels.dim()) if other != axis):
            labels = self.fix([labels], f"{name} reads channels and positions mixed").expand(labels.shape)
        channels = labels.movedim(axis, 0).flatten(1)[:, 0]
        self._ties.append(pairs(channels, self.inputs.setdefault(name, channels)))

    def _leave(self, name: str, layer: nn.Module, args: Any, result: Tensor) -> None:
        self._inside -= 1
        inputs, layout, blocks = self.inputs[name], layout_of(layer), blocks_of(layer)
        assert layout is not None
        if name not in self.outputs:
            self.outputs[name] = inputs if per_channel(layout) else self._new(size_of(layer)[1])
        outputs = self.outputs[name]
        if blocks > 1 or isinstance(layer, nn.GroupNorm):
            first = inputs.reshape(blocks, -1)[:, :1]
            for side in (inputs.reshape(blocks, -1), outputs.reshape(blocks, -1)):
                self._ties.append(pairs(side, first.expand(side.shape)))
        shape = [1] * result.dim()
        shape[axis_of(layer, result)] = -1
        self._labels[result] = lean(outputs.reshape(shape).expand(result.shape))

    def _of(self, tensor: Tensor) -> Tensor:
        """The labels of a tensor; one that was not made from the images is a constant, and fixes what it meets."""
        if tensor not in self._labels:
            name = self._parameters.get(id(tensor))
            reason = f"{name}, a bare parameter, is" if name else "a constant of the forward pass is"
            self._labels[tensor] = self._constant(f"{reason} combined with them").expand(tensor.shape)
        labels: Tensor = self._labels[tensor]
        return labels

    def _new(self, count: int) -> Tensor:
        self._count += count
        return torch.arange(self._count - count, self._count)

    def _constant(self, reason: str) -> Tensor:
        label = self._new(1)[0]
        self._fixed[int(label)] = reason
        return label


def _aside(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook whose own calls are not part of what is followed."""

    def called(*args: Any) -> None:
        with _disable_current_modes():
            hook(*args)

    return called


def tensors(values: Any) -> list[Tensor]:
    """Every tensor in nested arguments or answers, in their order."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def axis_of(layer: nn.Module, activation: Tensor) -> int:
    """The axis on which a layer's channels lie, in an activation with a batch."""
    return activation.dim() - 1 if isinstance(layer, nn.Linear) else 1
