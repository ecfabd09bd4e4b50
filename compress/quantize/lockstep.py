"""A quantized network and its float original, run side by side from layer to layer on the same images.

One pass does for all layers: what a repair changes in one is there when the next is reached. Of what was
computed, only what is still to be read is kept.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, fx

from compress.quantize.graph import dequantized
from compress.quantize.sequence import BIAS, KINDS, Q, arguments, attribute, calls

MEMORY = 2**30
"""Bytes that the images of one pass may fill at a network's widest place; four such values may be held at once."""

Env = dict[fx.Node, Any]


@dataclass(frozen=True)
class Visit:
    """A layer whose weight comes out of integers, about to be computed.

    `weight` and `bias` name the float tensors; `bias` is None where there is none that belongs to this layer alone.
    `source` is what reaches the quantized layer, `exact` what the float one computes, `scale` (outputs,) is that
    of its weight; `compute` gives what the quantized one computes from what `env` holds now.
    """

    call: fx.Node
    origin: fx.Node
    env: Env
    weight: str
    bias: str | None
    source: Tensor
    exact: Tensor
    scale: Tensor
    compute: Callable[[], Tensor]

    def put(self, argument: int, value: Tensor) -> None:
        """Have the layer read another value there."""
        self.env[arguments(self.call)[argument]] = value


def layers(quantized: fx.GraphModule, traced: fx.GraphModule) -> dict[str, tuple[fx.Node, fx.Node]]:
    """Every layer whose weight comes out of integers, by the weight's name: its first call, quantized and in float."""
    found: dict[str, tuple[fx.Node, fx.Node]] = {}
    for call, origin in zip(calls(quantized), calls(traced), strict=True):
        if KINDS.get(call.target) in ("conv", "linear") and dequantized(
            arguments(call)[1], by=Q.dequantize_per_channel.default
        ):
            found.setdefault(str(arguments(origin)[1].target), (call, origin))
    return found


def visit(quantized: fx.GraphModule, traced: fx.GraphModule, images: Tensor) -> Iterator[Visit]:
    """Every quantized layer in the order of computing; of one called more than once, the first call."""
    exact = _walk(traced, images)
    found = {call: (name, origin) for name, (call, origin) in layers(quantized, traced).items()}
    for call, env, compute in _walk(quantized, images):
        if call not in found:
            continue
        (name, origin), parts = found[call], arguments(call)
        scale = attribute(quantized, parts[1].args[1])
        yield Visit(call, origin, env, name, _bias(origin), env[parts[0]], _reach(exact, origin), scale, compute)


def fitting(traced: fx.GraphModule, count: int) -> int:
    """How many images, of `count`, one pass has memory for."""
    values = (call.meta.get("val") for call in calls(traced))
    shapes = (value.shape for value in values if isinstance(value, Tensor))
    widest = 4 * max(math.prod(extent for extent in shape if isinstance(extent, int)) for shape in shapes)
    return max(1, min(count, MEMORY // (4 * widest)))


def _walk(graph_module: fx.GraphModule, images: Tensor) -> Iterator[tuple[fx.Node, Env, Callable[[], Any]]]:
    """Each node before it is computed, with all values that are still to be read."""
    interpreter = fx.Interpreter(graph_module)
    interpreter.args_iter = iter((images,))
    for node in graph_module.graph.nodes:
        yield node, interpreter.env, partial(interpreter.run_node, node)
        interpreter.env[node] = interpreter.run_node(node)
        for done in interpreter.user_to_last_uses.get(node, ()):
            del interpreter.env[done]


def _reach(walk: Iterator[tuple[fx.Node, Env, Callable[[], Any]]], wanted: fx.Node) -> Tensor:
    """What a node computes, the walk going no further than the one after it."""
    for _, env, _ in walk:
        if wanted in env:
            value: Tensor = env[wanted]
            return value
    raise AssertionError(f"{wanted} is never computed")


def _bias(origin: fx.Node) -> str | None:
    parts = arguments(origin)
    bias = parts[BIAS] if len(parts) > BIAS else None
    alone = isinstance(bias, fx.Node) and bias.op == "get_attr" and len(bias.users) == 1
    return str(bias.target) if isinstance(bias, fx.Node) and alone and len(parts[1].users) == 1 else None


def per_channel(call: fx.Node, value: Tensor) -> Tensor:
    """What a layer computes, as (outputs, values)."""
    axis = 1 if KINDS[call.target] == "conv" else -1
    return value.movedim(axis, 0).flatten(1)
