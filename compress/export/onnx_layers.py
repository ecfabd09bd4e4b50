"""The per-layer view of an ONNX file, whoever wrote it: every convolution and matrix product with weights of its own."""

import onnx
from onnx import numpy_helper

from compress.measurement import Layer
from compress.runtime.integer import PRODUCTS, weight_macs
from compress.runtime.kernels import layer, named

PRECISIONS = {"float32": "fp32", "float16": "fp16", "int8": "int8", "uint8": "int8"}


def layers(content: bytes) -> tuple[Layer, ...]:
    """The layers in the order of the graph; none where its shapes cannot be followed."""
    model = named(onnx.load_model_from_string(content))
    macs = weight_macs(model) or {}
    behind = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        name = behind.get(node.input[1], node.input[1]) if node.op_type in PRODUCTS else ""
        if name in macs:
            weights = numpy_helper.to_array(stored[name])
            precision = PRECISIONS.get(str(weights.dtype), str(weights.dtype))
            zeros = float((weights == 0).mean())
            found.append(
                Layer(layer(node.name), node.op_type, *_channels(node, weights.shape), macs[name], zeros, precision)
            )
    return tuple(found)


def _channels(node: onnx.NodeProto, shape: tuple[int, ...]) -> tuple[int, int]:
    """How many channels go into a node with weights of this shape, and how many come out."""
    told = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        return shape[1] * told.get("group", 1), shape[0]
    first, last = shape[-2:] if len(shape) > 1 else (shape[0], 1)
    return (last, first) if told.get("transB") else (first, last)
