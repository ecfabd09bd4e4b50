"""How much of a graph ONNX Runtime computes in integers."""

import pytest
import small_onnx
from small_onnx import QUANTIZED

from compress.runtime.integer import integer_share, weight_macs
from compress.runtime.onnxruntime import OnnxSession

CONV, LINEAR = 8 * 8 * 4 * 27, 20


def test_the_share_is_that_of_the_layers_whose_weights_meet_integers():
    share = OnnxSession(small_onnx.model(QUANTIZED).SerializeToString()).integer_macs()
    assert share == pytest.approx(100 * CONV / (CONV + LINEAR), rel=1e-12)


def test_nothing_is_computed_in_integers_where_the_runtime_may_not_rewrite():
    assert OnnxSession(small_onnx.model(QUANTIZED).SerializeToString(), optimise=False).integer_macs() == 0


def test_a_graph_in_floating_point_has_no_share():
    assert OnnxSession(small_onnx.model().SerializeToString()).integer_macs() is None


def test_each_layers_count_is_its_arithmetic():
    assert weight_macs(small_onnx.model(QUANTIZED)) == {"weight": CONV, "matrix": LINEAR}


def test_a_matrix_is_used_once_a_row():
    text = '<ir_version: 10, opset_import: ["": 20]> a (float[N, 3, 8, 8] x) => (float[N, 3, 8, 5] y) <float[8, 5] w> { y = MatMul (x, w) }'
    assert weight_macs(small_onnx.model(text)) == {"w": 3 * 8 * 8 * 5}


def test_a_shape_that_cannot_be_inferred_leaves_the_share_unknown():
    known = small_onnx.model(QUANTIZED)
    text = QUANTIZED.replace('"": 20', '"": 20, "martian": 1')
    unknown = small_onnx.model(text.replace("DequantizeLinear (images_q", "martian.Dequantize (images_q"))
    assert integer_share(known, known) == 0
    assert integer_share(unknown, known) is None


def test_a_graph_that_was_stored_with_integer_operators_has_no_share():
    text = """<ir_version: 10, opset_import: ["": 20]> a (uint8[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y)
    <float s = {0.1}, uint8 z = {0}, int8[4, 3, 1, 1] w, int8 n = {0}>
    { q = QLinearConv (x, s, z, w, s, n, s, z)  y = DequantizeLinear (q, s, z) }"""
    model = small_onnx.model(text)
    assert integer_share(model, model) is None
