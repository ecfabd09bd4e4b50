"""Where the integers go: torchao's PT2E quantizer, told by a target.

A convolution, addition or pool reads integers and writes integers. What it writes is rounded once, at the
end of what a runtime computes in the same kernel: after the ReLU, not before it. A call that only moves
elements hands on the integers it is given, on the same scale, so that nothing is rounded twice.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeGuard

import torch
from torch import fx
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer, SharedQuantizationSpec

from compress.errors import Refusal
from compress.quantize import observers
from compress.quantize.observers import specification
from compress.quantize.sequence import KINDS, A, arguments, calls, title
from compress.quantize.target import Kind, Target
from compress.trace import module_of

ENDS = {A.relu.default, A.hardtanh.default, A.clamp.default}
"""Activations that a runtime computes as part of rounding to integers, by cutting the range off."""
ANSWERS = {A.softmax.int, A._softmax.default, A.log_softmax.int, A._log_softmax.default}
"""What may stand between the logits and the network's output."""
MOVES: tuple[Kind, ...] = ("reshape", "slice", "split", "pad", "cat")
"""And what may rearrange them."""
MULTIPLIES = {
    A.conv1d.default,
    A.conv1d.padding,
    A.conv3d.default,
    A.conv3d.padding,
    A.conv_transpose1d.default,
    A.conv_transpose2d.input,
    A.conv_transpose3d.input,
    A.convolution.default,
    A.matmul.default,
    A.mm.default,
    A.bmm.default,
    A.addmm.default,
    A.baddbmm.default,
    A.einsum.default,
    A.scaled_dot_product_attention.default,
}
"""Multiply-accumulates that no target here is given as integers."""
ANNOTATION = "quantization_annotation"
SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)
"""Numbers that are known only while the network runs."""


class Placement(Quantizer):  # type: ignore[misc]  # torchao has no types
    """Annotates a traced graph with what `target` wants, but for the layers in `left`.

    Activations are watched by the observer of that name, `share` being what `percentile` keeps.
    """

    left: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self, target: Target, observer: str, *, share: float = 99.99, left: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.target, self.left = target, left
        self.activation = specification(target.activations, observers.observer(observer, share))
        self.weight = specification(target.weights, observers.WEIGHTS[target.weight_scales], axis=0)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Annotate in place; torchao calls this."""
        sequence = calls(model)
        answers = _answers(sequence)
        fused = {source for call in sequence if (source := self._fused(call)) is not None}
        for call in sequence:
            if KINDS.get(call.target) in self.target.computed and reason(call, self.target, self.left) is None:
                self._computed(call, fused, answers)
        for call in sequence:
            if KINDS.get(call.target) in self.target.carried and call not in answers:
                self._carried(call)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to add: what stays in float is asked of `refusals`."""

    def _computed(self, call: fx.Node, fused: set[fx.Node], answers: set[fx.Node]) -> None:
        annotation = _annotation(call)
        layer = KINDS[call.target] in ("conv", "linear")
        for source in _tensors(call)[: 1 if layer else None]:
            if source not in fused:
                annotation.input_qspec_map[source] = self.activation
        if layer:
            annotation.input_qspec_map[arguments(call)[1]] = self.weight
        end = _end(call)
        if end not in answers and end not in fused:
            _annotation(end).output_qspec = self.activation

    def _carried(self, call: fx.Node) -> None:
        """Let a call hand on integers, if it is given any; all it reads and writes shares one scale."""
        sources = _tensors(call)
        if KINDS.get(call.target) == "pad" and not all(map(math.isfinite, filter(_is_number, arguments(call)))):
            return  # padded with infinity, as before a max pool: no integer stands for that
        if not any(ANNOTATION in source.meta and source.meta[ANNOTATION].output_qspec for source in sources):
            return
        annotation = _annotation(call)
        if call.target is operator.getitem:  # one of the parts of a split, whose own result is a list
            annotation.output_qspec = SharedQuantizationSpec((sources[0].args[0], sources[0]))
            return
        # Where zero is the middle of every range, a shared scale takes nothing from values that are never below it.
        symmetric = self.target.activations.symmetric
        signed = [] if symmetric else [source for source in sources if not _positive(source)]
        together = signed or sources
        annotation.output_qspec = shared = SharedQuantizationSpec((together[0], call))
        annotation.input_qspec_map = dict.fromkeys(sources, self.activation) | dict.fromkeys(together[1:], shared)

    def _fused(self, call: fx.Node) -> fx.Node | None:
        """The convolution that the target computes together with the addition after it."""
        if self.target.residual == "both" or KINDS.get(call.target) != "add":
            return None
        sources = (source for source in _tensors(call) if KINDS.get(source.target) == "conv" and len(source.users) == 1)
        return next(sources, None)


def refusals(
    graph_module: fx.GraphModule, target: Target, left: Mapping[str, str] = MappingProxyType({})
) -> tuple[Refusal, ...]:
    """The layers of a traced graph that stay in float, and why; `left` has reasons of its own."""
    found: dict[str, Refusal] = {}
    for call in calls(graph_module):
        if call.target in MULTIPLIES or KINDS.get(call.target) in ("conv", "linear"):
            why = reason(call, target, left)
            if why:
                name = next(filter(None, (module_of(value) for value in arguments(call))), call.name)
                found.setdefault(name, Refusal(name, why))
    return tuple(found.values())


def reason(call: fx.Node, target: Target, left: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """Why a call is not computed on integers, or None where it is."""
    kind = KINDS.get(call.target)
    if kind not in target.computed:
        return f"{target.name} is given no integer form of {title(call)}"
    parts = arguments(call)
    if kind in ("conv", "linear"):
        weight = parts[1]
        if weight.op != "get_attr":
            return "its weight is computed, not stored"
        if any(KINDS.get(user.target) != kind or arguments(user)[1] is not weight for user in weight.users):
            return "its weight is used elsewhere too"
        if (name := module_of(weight)) in left:
            return left[name]
    elif any(constant(value) for value in parts[: _operands(kind)]):
        return "one side of it is a constant"
    if not _is_float(call):
        return "it does not compute on numbers of 32 bits"
    return None


def _operands(kind: Kind | None) -> int:
    return 2 if kind in ("add", "mul") else 1


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _tensors(call: fx.Node) -> list[fx.Node]:
    """The different tensors a call reads that were computed before it, from the images."""
    return list(dict.fromkeys(value for value in arguments(call) if not constant(value)))


def constant(value: object) -> bool:
    """Whether an argument is no tensor, or one that no image changes: stored, or computed from what is stored."""
    if not isinstance(value, fx.Node) or isinstance(value.meta.get("val"), SYMBOLS):
        return True
    if value.op == "get_attr":
        return True
    return value.op == "call_function" and bool(value.all_input_nodes) and all(map(constant, value.all_input_nodes))


def _positive(node: fx.Node) -> bool:
    """Whether a value is never below zero, by an activation: on a scale shared with values that are, it would no longer cut."""
    while KINDS.get(node.target) in ("max-pool", "average-pool", "slice", "split", "reshape"):
        node = arguments(node)[0]
    if KINDS.get(node.target) == "cat":
        return all(map(_positive, _tensors(node)))
    return node.target in (A.relu.default, A.sigmoid.default) or (node.target in ENDS and arguments(node)[1:2] == [0])


def _end(call: fx.Node) -> fx.Node:
    """The last of the activations that follow a call and nothing else reads."""
    while len(call.users) == 1:
        (user,) = call.users
        if user.target not in ENDS:
            break
        call = user
    return call


def _answers(sequence: Iterable[fx.Node]) -> set[fx.Node]:
    """The calls whose result is the logits, or only moved, cut or normalised to become the network's output."""
    found: set[fx.Node] = set()
    for call in reversed(list(sequence)):
        for user in call.users:
            passes = user.target in ENDS | ANSWERS or KINDS.get(user.target) in MOVES
            if user.op == "output" or (passes and user in found):
                found.add(call)
    return found


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float))


def _annotation(call: fx.Node) -> Any:
    return call.meta.setdefault(ANNOTATION, QuantizationAnnotation(_annotated=True))
