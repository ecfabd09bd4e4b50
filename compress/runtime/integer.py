"""How much of an ONNX graph's arithmetic a runtime does in integers, read from the graph as it is after its rewriting."""

import math
from collections import Counter

import onnx

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""What has multiply-accumulates in a graph as it is exported: the second input holds the weights."""

INTEGER = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")
"""What ONNX Runtime makes of them where it computes in integers; the weights keep their name."""


def integer_share(model: onnx.ModelProto, optimised: onnx.ModelProto) -> float | None:
    """The share of multiply-accumulates in integer kernels, in per cent.

    `model` is a graph with QuantizeLinear and DequantizeLinear, `optimised` what the runtime made of it. A layer
    counts as integer when its weights go into an integer kernel there. None for a graph that is not quantized
    this way, or in which a layer's shape cannot be inferred.
    """
    operators = {node.op_type for node in model.graph.node}
    counts = weight_macs(model) if "DequantizeLinear" in operators and not operators & set(INTEGER) else None
    if not counts:
        return None
    used = {name for node in optimised.graph.node if node.op_type in INTEGER for name in node.input}
    return 100 * sum(count for name, count in counts.items() if name in used) / sum(counts.values())


def weight_macs(model: onnx.ModelProto) -> dict[str, int] | None:
    """Multiply-accumulates for one image by the name of the stored tensor that holds the weights.

    Every number of a convolution's weights is used once for each position of an output channel, and every
    number of a matrix once for each row it is multiplied with. None where a shape cannot be inferred.
    """
    shapes = _shapes(model)
    behind = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    stored = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        weights = behind.get(node.input[1], node.input[1]) if node.op_type in PRODUCTS else ""
        if weights in stored:
            shape = shapes.get(node.output[0])
            if shape is None:
                return None
            counts[weights] += stored[weights] * math.prod(shape[2:] if node.op_type == "Conv" else shape[:-1])
    return dict(counts)


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shape of every tensor that one can be inferred for, when one image is shown."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del single.graph.value_info[:]
    for output in single.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    found = {
        value.name: [extent.dim_value for extent in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    return {name: shape for name, shape in found.items() if all(shape)}
