"""Rules about where a graph rounds to integers, and where it does not."""

from collections.abc import Iterator

import onnx_ir as ir

from compress.lint.finding import Finding
from compress.lint.graph import (
    DEQUANTIZE,
    EIGHT_BITS,
    ENDS,
    MULTIPLIES,
    QUANTIZE,
    activation,
    answers,
    constant,
    end,
    grid,
    kind,
    layers,
    quantizers,
    real,
    rounded,
    tensors,
    title,
    users,
)
from compress.quantize.target import Target


def not_quantized(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Layers that stay float in a graph that has integers: something they read or write is not rounded."""
    if not any(quantizers(model)):
        return
    for node in layers(model):
        missing = ["its input"] * any(activation(value) is None for value in tensors(node))
        missing += ["its weight"] * (constant(node.inputs[1]) is not None)
        # Where biases stay float, so may what is added to them: the products are integers all the same.
        missing += ["its output"] * (target.bias == "int32" and not _written(node))
        if missing:
            yield Finding(
                title(node),
                "not-quantized",
                "slow",
                f"{' and '.join(missing)} passes no Q/DQ, so {target.runtime} computes it in float.",
                "Quantize it too, unless it was left out on purpose.",
            )


def _written(node: ir.Node) -> bool:
    """Whether what a layer computes is rounded, or another rule's business: the logits', or an addition's."""
    value = end(node)
    return rounded(value) is not None or any(kind(user) == "add" for user in users(value)) or answers(value)


def residual(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Additions of two branches with the Q/DQ on the wrong one."""
    for node in model.graph:
        sides = tensors(node) if kind(node) == "add" else []
        held = [activation(value) for value in sides]
        if target.residual == "both" and len(sides) > 1 and any(map(_integer, sides)) and not all(held):
            yield Finding(
                title(node),
                "residual",
                "slow",
                f"{'only one side of' if any(held) else 'nothing into'} it passes Q/DQ, so {target.runtime} adds in float, and keeps "
                "the layer before in float.",
                f"Quantize both sides (--target {target.name}).",
            )
    for node, _ in rounded_branches(model, target):
        yield Finding(
            title(node),
            "residual",
            "slow",
            f"{target.runtime} would add in the kernel of the convolution before it, but that rounds on its way here.",
            "Remove the Q/DQ between the convolution and the addition (--fix), and keep the one on the shortcut.",
        )


def _integer(value: ir.Value) -> bool:
    """Whether a value is dequantized, or computed by a layer that reads integers."""
    producer = value.producer()
    reads = producer is not None and kind(producer) in MULTIPLIES and activation(producer.inputs[0]) is not None
    return reads or activation(value) is not None


def rounded_branches(model: ir.Model, target: Target) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Additions a target fuses with the layer on one branch, and the value by which they read that layer rounded."""
    for node in model.graph:
        sides = tensors(node) if kind(node) == "add" and target.residual == "shortcut" else []
        value = next(filter(_own, sides), None) if len(sides) > 1 and all(map(activation, sides)) else None
        if value is not None:
            yield node, value


def _own(value: ir.Value) -> bool:
    """Whether a value is what a layer computed for one reader alone, rounded."""
    held = activation(value)
    source = real(held) if held is not None else None
    multiplies = source is not None and kind(source.producer()) in MULTIPLIES
    return source is not None and multiplies and len(users(source)) == len(users(value)) == 1


def rounded_twice(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Layers whose result is rounded before their activation, and again after it."""
    for node, following in rounded_early(model, target):
        yield Finding(
            title(node),
            "rounded-twice",
            "slow",
            f"{title(following)} follows, which {target.runtime} would compute in the kernel before.",
            "Remove this Q/DQ and keep the one after the activation (--fix).",
        )


def rounded_early(model: ir.Model, target: Target) -> Iterator[tuple[ir.Node, ir.Node]]:
    """The QuantizeLinear between a layer and its activation, and that activation, where its cut can be left to the next one.

    A runtime with zero points leaves it there: it has no kernel with a ReLU, only ranges that start at zero.
    """
    for node, _ in quantizers(model):
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        following = [user for held in users(node.outputs[0]) for user in users(held.outputs[0])]
        last = following[0] if len(following) == 1 and following[0].op_type in ENDS else None
        after = rounded(end(last)) if last is not None else None
        own = grid(after) if after is not None else None
        if kind(producer) not in target.computed or last is None or own is None or own.dtype not in EIGHT_BITS:
            continue
        if target.activations.symmetric or (own.zero_point == EIGHT_BITS[own.dtype][0]).all():
            yield node, last


def shared_scale(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Operators that only move numbers, with another scale behind them than before them."""
    for node, before, _ in rescaled(model, target):
        alone = f": quantize again with --target {target.name}." if len(before) > 1 else " (--fix)."
        yield Finding(
            title(node),
            "shared-scale",
            "slow",
            f"{node.op_type} only moves numbers, and rounds them again because the scales before and after it differ.",
            f"Give what goes in and what comes out one scale{alone}",
        )


def rescaled(model: ir.Model, target: Target) -> Iterator[tuple[ir.Node, list[ir.Node], ir.Node]]:
    """Nodes that only move numbers, what dequantizes them before, and what rounds them on another scale behind."""
    for node in model.graph:
        reads = [activation(value) for value in tensors(node)] if kind(node) in target.carried else []
        before, after = [held for held in reads if held is not None], rounded(node.outputs[0]) if reads else None
        own = grid(after) if after is not None else None
        grids = [found for held in before if (found := grid(held)) is not None]
        if after is not None and own is not None and len(grids) == len(reads) and not all(map(own.same, grids)):
            yield node, before, after


def float_island(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Operators computed in float between integers: they are dequantized before and rounded again after."""
    seen: set[ir.Node] = set()
    for node in model.graph:
        if node in seen or not _floats(node, target):
            continue
        island = _grow(node, target)
        seen |= island
        comes = any(activation(value) is not None for each in island for value in tensors(each))
        goes = any(user.op_type == QUANTIZE for each in island for value in each.outputs for user in users(value))
        if comes and goes:
            names = ", ".join(dict.fromkeys(each.op_type for each in model.graph if each in island))
            yield Finding(
                title(node),
                "float-island",
                "slow",
                f"{names} between integer layers: {target.runtime} goes to float and back for it.",
                "Write it with operators the runtime has integers for (a mean as GlobalAveragePool, SiLU as Sigmoid and Mul).",
            )


def _floats(node: ir.Node, target: Target) -> bool:
    """Whether a node computes in float, and rounding what it reads is not the business of another rule."""
    if node.op_type in (QUANTIZE, DEQUANTIZE, *ENDS) or kind(node) in (*MULTIPLIES, "add") or not tensors(node):
        return False
    known = kind(node) in target.computed | target.carried
    return not known or any(activation(value) is None for value in tensors(node))


def _grow(node: ir.Node, target: Target) -> set[ir.Node]:
    """The float nodes that hang together with this one."""
    island, edge = {node}, [node]
    while edge:
        each = edge.pop()
        near = [value.producer() for value in tensors(each)] + [user for value in each.outputs for user in users(value)]
        fresh = {other for other in near if other is not None and other not in island and _floats(other, target)}
        island |= fresh
        edge += fresh
    return island
