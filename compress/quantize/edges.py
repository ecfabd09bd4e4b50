"""A quantized network as data: the arguments that come out of integers, read from the graph torchao converted."""

from typing import Any

import torch
from torch import fx

from compress.architecture import Edge, Quantization
from compress.quantize.graph import RANGES, SCALE, ZERO_POINT, Tensors, dequantized
from compress.quantize.packing import pack, packs
from compress.quantize.sequence import BIAS, KINDS, Q, arguments, attribute, calls, operators
from compress.quantize.target import Target


def read(converted: fx.GraphModule, traced: fx.GraphModule, target: Target) -> tuple[Quantization, Tensors]:
    """The edges of a converted graph and the tensors they refer to; `traced` is the graph it was made from.

    Raises AssertionError where converting changed the sequence of calls.
    """
    edges: list[Edge] = []
    tensors: Tensors = {}
    rows: dict[tuple[float, int], int] = {}
    sequence, origins = calls(converted), calls(traced)
    assert [call.target for call in sequence] == [call.target for call in origins], "converting changed the calls"
    for position, (call, origin) in enumerate(zip(sequence, origins, strict=True)):
        for argument, (value, source) in enumerate(zip(arguments(call), arguments(origin), strict=True)):
            if dequantized(value, by=Q.dequantize_per_tensor.default):
                scale, zero_point, low, high, dtype = value.args[1:6]
                row = rows.setdefault((scale, zero_point), len(rows))
                edges.append(Edge(position, argument, _word(dtype), low, high, quantizer=row))
            elif dequantized(value, by=Q.dequantize_per_channel.default):
                integer, scale, _, axis, low, high, dtype = value.args[:7]
                name = str(source.target)
                whole = attribute(converted, integer)
                tensors[f"{name}.integer"] = pack(whole) if packs(low, high) else whole
                tensors[f"{name}.scale"] = attribute(converted, scale)
                edges.append(Edge(position, argument, _word(dtype), low, high, tensor=name, axis=axis))
        if target.bias == "int32" and _adds_integers(call, origin):
            edges.append(
                Edge(position, BIAS, "int32", *RANGES["int32"], tensor=str(arguments(origin)[BIAS].target), axis=0)
            )
    tensors[SCALE] = torch.tensor([scale for scale, _ in rows], dtype=torch.float32)
    tensors[ZERO_POINT] = torch.tensor([zero_point for _, zero_point in rows], dtype=torch.int32)
    return Quantization(target.name, operators(traced), tuple(edges)), tensors


def _adds_integers(call: fx.Node, origin: fx.Node) -> bool:
    """Whether a call adds a stored bias to integer products.

    A linear layer on more than (N, features) does not: as ONNX it is a product and an addition of its own.
    """
    kind, parts = KINDS.get(call.target), arguments(origin)
    return (
        kind in ("conv", "linear")
        and len(parts) > BIAS
        and isinstance(parts[BIAS], fx.Node)
        and parts[BIAS].op == "get_attr"
        and all(dequantized(value) for value in arguments(call)[:BIAS])
        and (kind == "conv" or origin.meta["val"].dim() == 2)
    )


def _word(dtype: Any) -> Any:
    """uint8 for torch.uint8."""
    return str(dtype).removeprefix("torch.")
