"""ONNX files written by hand, so that what runs them is not tested with what we export."""

from pathlib import Path

import numpy as np
import onnx.parser
from onnx import helper, numpy_helper

CLASSIFIER = """
<ir_version: 10, opset_import: ["": 20]>
small (float[BATCH, 3, 8, 8] images) => (float[BATCH, 5] logits)
<float[4, 3, 3, 3] weight, float[5, 4] matrix, float[5] bias>
{
    convolved = Conv <pads = [1, 1, 1, 1]> (images, weight)
    positive = Relu (convolved)
    pooled = GlobalAveragePool (positive)
    flat = Flatten (pooled)
    logits = Gemm <transB = 1> (flat, matrix, bias)
}
"""
"""A convolution, a pool and a linear layer, BATCH to be replaced by N or a number."""

QUANTIZED = """
<ir_version: 10, opset_import: ["": 20]>
small (float[N, 3, 8, 8] images) => (float[N, 5] logits)
<float small = {0.05}, uint8 middle = {128}, int8 zero = {0}, int8[4, 3, 3, 3] weight, float[5, 4] matrix>
{
    images_q = QuantizeLinear (images, small, middle)
    images_d = DequantizeLinear (images_q, small, middle)
    weight_d = DequantizeLinear (weight, small, zero)
    convolved = Conv <pads = [1, 1, 1, 1]> (images_d, weight_d)
    convolved_q = QuantizeLinear (convolved, small, middle)
    convolved_d = DequantizeLinear (convolved_q, small, middle)
    pooled = GlobalAveragePool (convolved_d)
    flat = Flatten (pooled)
    logits = Gemm <transB = 1> (flat, matrix)
}
"""
"""An integer convolution of 8 x 8 x 4 x 27 MACs, and a linear layer of 20 left in floating point."""


def model(text: str = CLASSIFIER, batch: str = "N") -> onnx.ModelProto:
    """The graph of `text`, the tensors it declares filled with seeded numbers."""
    found = onnx.parser.parse_model(text.replace("BATCH", batch))
    random = np.random.default_rng(0)
    for declared in found.graph.value_info:
        shape = [extent.dim_value for extent in declared.type.tensor_type.shape.dim]
        values = 3 * random.standard_normal(shape, dtype=np.float32)
        kind = helper.tensor_dtype_to_np_dtype(declared.type.tensor_type.elem_type)
        found.graph.initializer.append(numpy_helper.from_array(values.astype(kind), declared.name))
    del found.graph.value_info[:]
    return found


def write(path: Path, text: str = CLASSIFIER, batch: str = "N") -> Path:
    """A file of that graph."""
    path.write_bytes(model(text, batch).SerializeToString())
    return path
