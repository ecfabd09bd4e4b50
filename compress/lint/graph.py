"""Reading a graph with Q/DQ: what is held as integers, on which scale, and what follows what.

An activation passes a QuantizeLinear and a DequantizeLinear; a weight is stored as integers behind a
DequantizeLinear alone, or in floating point behind both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from compress.quantize.target import Kind

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

KINDS: dict[str, Kind] = {
    "Conv": "conv",
    "Gemm": "linear",
    "MatMul": "linear",
    "Add": "add",
    "Mul": "mul",
    "Sigmoid": "sigmoid",
    "AveragePool": "average-pool",
    "GlobalAveragePool": "average-pool",
    "Concat": "cat",
    "MaxPool": "max-pool",
    "Pad": "pad",
    "Slice": "slice",
    "Split": "split",
    "Flatten": "reshape",
    "Identity": "reshape",
    "Reshape": "reshape",
    "Squeeze": "reshape",
    "Transpose": "reshape",
    "Unsqueeze": "reshape",
}
"""What a target calls each ONNX operator."""

EIGHT_BITS = {"int8": (-128, 127), "uint8": (0, 255)}
"""The least and the highest of the integers that rules about ranges know."""
MULTIPLIES = ("conv", "linear")
ENDS = ("Relu", "Clip")
"""Activations that a runtime computes as part of rounding to integers, by cutting the range off."""
ANSWERS = ("Softmax", "LogSoftmax")
"""What may stand between the logits and the network's output."""


@dataclass(frozen=True)
class Grid:
    """The numbers that integers stand for: real = scale * (integer - zero point), by channel along `axis` or for all.

    `scale` and `zero_point` are flat here; in the graph they have `shape`.
    """

    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    dtype: str
    axis: int
    shape: tuple[int, ...]

    def same(self, other: "Grid") -> bool:
        """Whether two tensors on these grids can hand on their integers as they are."""
        return (
            self.dtype == other.dtype
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


def read(content: bytes) -> ir.Model:
    """The model of checked ONNX bytes."""
    return ir.from_proto(onnx.load_model_from_string(content))


def title(node: ir.Node) -> str:
    """The name of a node, or what it computes where it has none."""
    return node.name or f"{node.op_type} of {node.outputs[0].name}"


def kind(node: ir.Node | None) -> Kind | None:
    """What a target calls the operator of a node; None where targets have no word for it."""
    return KINDS.get(node.op_type) if node is not None else None


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The numbers of a value that is stored in the graph, None where it is computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return tensor.numpy() if tensor is not None else None


def grid(node: ir.Node) -> Grid | None:
    """The grid of a QuantizeLinear or DequantizeLinear, None where its scale is not stored in the graph."""
    scale = constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    if scale is None or zero is None:
        return None
    integers = constant(node.inputs[0]) if len(node.inputs) < 3 and node.op_type == DEQUANTIZE else zero
    dtype = str((zero if integers is None else integers).dtype)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    return Grid(scale.astype(np.float64).reshape(-1), zero.astype(np.int64).reshape(-1), dtype, axis, scale.shape)


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear a value comes from."""
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == DEQUANTIZE else None


def real(node: ir.Node) -> ir.Value | None:
    """What the integers of a DequantizeLinear stand for: the input of its QuantizeLinear, or stored integers."""
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    return producer.inputs[0] if producer is not None and producer.op_type == QUANTIZE else value


def weight(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear of a stored weight or bias, also of one that is only transposed behind it."""
    producer = value.producer() if value is not None else None
    while producer is not None and kind(producer) == "reshape":
        value = producer.inputs[0]
        producer = value.producer() if value is not None else None
    node = dequantizer(value)
    return node if node is not None and constant(real(node)) is not None else None


def activation(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear of a computed tensor."""
    node = dequantizer(value)
    return node if node is not None and constant(real(node)) is None else None


def users(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value."""
    return [use.node for use in value.uses()]


def tensors(node: ir.Node) -> list[ir.Value]:
    """The values a node reads that were computed before it: no weights, no shapes."""
    reads = node.inputs if node.op_type in ("Add", "Mul", "Concat", "MatMul") else node.inputs[:1]
    return [value for value in reads if value is not None and constant(value) is None and weight(value) is None]


def quantizers(model: ir.Model) -> Iterator[tuple[ir.Node, Grid]]:
    """Every QuantizeLinear of a computed tensor, with its grid."""
    for node in model.graph:
        if node.op_type == QUANTIZE and constant(node.inputs[0]) is None and (found := grid(node)) is not None:
            yield node, found


def layers(model: ir.Model) -> Iterator[ir.Node]:
    """Every node that multiplies by a weight."""
    return (node for node in model.graph if kind(node) in MULTIPLIES)


def end(node: ir.Node) -> ir.Value:
    """What a layer computes, after the activations that follow it and that nothing else reads."""
    value = node.outputs[0]
    while len(following := users(value)) == 1 and following[0].op_type in ENDS:
        value = following[0].outputs[0]
    return value


def rounded(value: ir.Value) -> ir.Node | None:
    """The QuantizeLinear that reads a value."""
    return next((node for node in users(value) if node.op_type == QUANTIZE), None)


def answers(value: ir.Value) -> bool:
    """Whether a value is the logits, or on the way to them moved or normalised only."""
    passed = all(kind(node) == "reshape" or node.op_type in (*ENDS, *ANSWERS) for node in users(value))
    return passed and (value.is_graph_output() or any(answers(node.outputs[0]) for node in users(value)))
