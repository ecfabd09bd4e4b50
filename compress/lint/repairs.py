"""What can be done about a finding without seeing the data again: each changes a graph in place and says how often."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript.rewriter.rules.common import fuse_batchnorm_into_conv_rule

from compress.lint.graph import DEQUANTIZE, EIGHT_BITS, activation, layers, quantizers, real, users, weight
from compress.lint.integers import CENTRE, HIGHEST, half_used, movable, own_scale, real_bias, sum_scale
from compress.lint.placement import rescaled, rounded_branches, rounded_early
from compress.quantize.target import Target


def fold_batch_norms(model: ir.Model, target: Target) -> int:
    """Batch norms into the convolutions before them; exact but for the order of FP32 sums."""
    return int(fuse_batchnorm_into_conv_rule.apply_to_model(model))


def move_zero_points(model: ir.Model, target: Target) -> int:
    """Activations from int8 to uint8 or back, 128 up or down: other integers for the very same numbers."""
    wanted = target.activations
    step = CENTRE if wanted.dtype == "uint8" else -CENTRE
    moved = [(node, found) for node, found in quantizers(model) if movable(found, wanted) and _plain(node)]
    for node, found in moved:
        zero = np.asarray(found.zero_point + step, wanted.dtype).reshape(found.shape)
        _regrid(model, node, _store(model, f"{node.outputs[0].name}/zero_point", zero), 2)
    return len(moved)


def use_range(model: ir.Model, target: Target) -> int:
    """Behind a ReLU or ReLU6, integers that start and end where it does, in steps as fine as that allows.

    It then adds nothing to the rounding behind it; a rounding before it would be on a grid that no longer fits.
    """
    found = [each for each in half_used(model, target) if _plain(each[0])]
    for node, held, _, (low, high) in found:
        least, highest = EIGHT_BITS[held.dtype]
        scale = (max(high, 0.0) - min(low, 0.0)) / (highest - least)
        zero = least - round(min(low, 0.0) / scale)
        for place, name, number in ((1, "scale", np.float32(scale)), (2, "zero_point", np.array(zero, held.dtype))):
            numbers = np.asarray(number).reshape(held.shape)
            _regrid(model, node, _store(model, f"{node.outputs[0].name}/{name}", numbers), place)
    early = {following: node for node, following in rounded_early(model, target)}
    for node, *_ in found:
        before = node.inputs[0].producer()
        if before in early:
            before.replace_input_with(0, early[before].inputs[0])
    return len(found)


def rewrite_biases(model: ir.Model, target: Target) -> int:
    """Biases as the target takes them: in float, or those in int32 on the scale of input times weight, rounded to it."""
    done = 0
    for node in tuple(layers(model)):
        numbers, unit = real_bias(node), sum_scale(node)
        if numbers is None or unit is None:
            continue
        bias, scale = node.inputs[2], np.broadcast_to(unit, numbers.shape)
        if target.bias == "float" and weight(bias) is not None:
            node.replace_input_with(2, _store(model, f"{bias.name}/float", numbers.astype(np.float32)))
        elif target.bias == "int32" and own_scale(node) is not None and np.abs(numbers / scale).max() <= HIGHEST:
            parts = {"int32": np.rint(numbers / scale).astype(np.int32), "scale": scale.astype(np.float32)}
            stored = [_store(model, f"{bias.name}/{name}", part) for name, part in parts.items()]
            held = ir.node(DEQUANTIZE, stored, {"axis": 0}, name=f"{bias.name}/{DEQUANTIZE}")
            held.outputs[0].name = held.name
            node.graph.insert_before(node, held)
            node.replace_input_with(2, held.outputs[0])
        else:
            continue
        done += 1
    return done


def round_once(model: ir.Model, target: Target) -> int:
    """The Q/DQ between a layer and its activation away, where another comes behind the activation."""
    found = tuple(rounded_early(model, target))
    for node, following in found:
        following.replace_input_with(0, node.inputs[0])
    return len(found)


def unround_branches(model: ir.Model, target: Target) -> int:
    """The Q/DQ away between a convolution and the addition it is fused with."""
    found = tuple(rounded_branches(model, target))
    for node, value in found:
        held = activation(value)
        node.replace_input_with(node.inputs.index(value), real(held) if held is not None else value)
    return len(found)


def share_scales(model: ir.Model, target: Target) -> int:
    """Behind an operator that only moves numbers, the scale there was before it."""
    done = 0
    for _, before, after in rescaled(model, target):
        if len(before) == 1 and len(before[0].inputs) == 3 and _plain(after):
            for place in (1, 2):
                _regrid(model, after, before[0].inputs[place], place)
            done += 1
    return done


REPAIRS: dict[str, Callable[[ir.Model, Target], int]] = {
    "batch-norm": fold_batch_norms,
    "unused-range": use_range,
    "rounded-twice": round_once,
    "residual": unround_branches,
    "activation-type": move_zero_points,
    "shared-scale": share_scales,
    "bias-type": rewrite_biases,
}
"""What is done about each rule that can be repaired, in the order it is done."""

ROUNDS = frozenset({"unused-range", "rounded-twice", "residual", "shared-scale", "bias-type"})
"""Repairs that round in another place or on another scale; the others change no number."""


def _plain(node: ir.Node) -> bool:
    """Whether nothing stands between a QuantizeLinear and what dequantizes it."""
    return all(user.op_type == DEQUANTIZE for user in users(node.outputs[0])) and len(node.inputs) == 3


def _regrid(model: ir.Model, node: ir.Node, value: ir.Value | None, place: int) -> None:
    """Give a QuantizeLinear and what dequantizes it another scale (place 1) or zero point (place 2)."""
    for each in (node, *users(node.outputs[0])):
        each.replace_input_with(place, value)
    if place == 2 and value is not None and value.dtype is not None:
        node.outputs[0].dtype = value.dtype


def _store(model: ir.Model, name: str, numbers: NDArray[Any]) -> ir.Value:
    """A new constant of the graph, named after what it is; repaired again, a place has another of that name."""
    taken = model.graph.initializers
    name = next(each for number in itertools.count(1) if (each := f"{name}.{number}") not in taken)
    value = ir.val(name, const_value=ir.tensor(np.asarray(numbers), name=name))
    model.graph.register_initializer(value)
    return value
