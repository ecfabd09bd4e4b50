"""Each rule: the graph that breaks it, and the nearest one that does not."""

import re

import ml_dtypes
import numpy as np
import onnx
import pytest
from qdq import INT8, UINT8, Graph

from compress.errors import UsageError
from compress.lint.finding import Finding
from compress.lint.rules import RULES, lint
from compress.quantize.target import TARGETS

CPU, TRT, OPENVINO = TARGETS["onnxruntime-cpu"], TARGETS["tensorrt"], TARGETS["openvino"]


def one_conv(dtype=UINT8, zero=128, bias="int32", out_zero=None, shape=("N", 3, 8, 8), scales=0.1, **settings):
    """Q/DQ, a convolution, Q/DQ, and a pool that stays float because it ends in the logits."""
    graph = Graph(shape, dtype, zero)
    value = graph.conv(graph.held("images"), "conv", bias=bias, **settings)
    return graph.bytes(graph.held(value, scales, out_zero))


def symmetric(**settings):
    return one_conv(**{"dtype": INT8, "zero": 0, "bias": "float", **settings})


def relu(zero, early, dtype=UINT8, middle=None, top=None, scale=0.1):
    """A convolution and a ReLU (a ReLU6 with `top`), with Q/DQ behind the ReLU, and `early` also before it."""
    graph = Graph(dtype=dtype, zero=128 if dtype == UINT8 else 0)
    value = graph.conv(graph.held("images"), "conv", bias="int32" if dtype == UINT8 else "float")
    value = graph.held(value, 0.1, middle) if early else value
    ends = [graph.store("low", np.float32(0)), graph.store("high", np.float32(top))] if top else []
    return graph.bytes(graph.held(graph.node("Clip" if top else "Relu", value, *ends, name="relu"), scale, zero))


def residual(left, right, dtype=UINT8, end=True):
    """A convolution and its input added, each side with Q/DQ or without."""
    graph = Graph(dtype=dtype, zero=128 if dtype == UINT8 else 0)
    bias = "int32" if dtype == UINT8 else "float"
    first = graph.held(graph.conv(graph.held("images"), "first", bias=bias), 0.1)
    value = graph.conv(first, "second", inputs=4, bias=bias, bias_scale=0.1 * 0.01)
    value = graph.held(value, 0.1) if left else value
    other = first if right else graph.node("Neg", first, name="negative")
    value = graph.node("Add", value, other, name="add")
    return graph.bytes(graph.held(value, 0.1) if end else value)


def moved(kind, scale, **attributes):
    """Q/DQ, an operator that only moves numbers, and Q/DQ on `scale`."""
    graph = Graph()
    value = graph.held(graph.conv(graph.held("images"), "conv", bias="int32"), 0.1)
    value = graph.node(kind, *([value] if kind != "Concat" else [value, value]), name="moves", **attributes)
    return graph.bytes(graph.held(value, scale), 8 if kind == "Concat" else 4)


def between(*kinds):
    """Operators between two integer convolutions."""
    graph = Graph()
    value = graph.held(graph.conv(graph.held("images"), "first", bias="int32"), 0.1)
    for kind in kinds:
        value = graph.node(kind, value, name=kind.lower())
    value = graph.conv(graph.held(value, 0.05), "second", inputs=4, bias="int32")
    return graph.bytes(graph.held(value, 0.1))


def normed(training=0, quantized=False, reads="conv"):
    graph = Graph()
    value = graph.held("images") if quantized else "images"
    if quantized:
        value = graph.conv(value, "conv")
    else:
        value = graph.node("Conv", value, graph.store("w", np.ones((4, 3, 3, 3), np.float32)), name="conv")
    value = graph.node("Relu", value, name="relu") if reads == "relu" else value
    numbers = [graph.store(f"n{place}", np.full(4, 1.5, np.float32)) for place in range(4)]
    value = graph.node("BatchNormalization", value, *numbers, name="norm", training_mode=training)
    graph.nodes[-1].output.extend(["mean", "variance"] * training)
    return graph.bytes(value)


def transposed():
    """A linear layer on the channels, written as a MatMul with its weight transposed behind the dequantizer."""
    graph = Graph(dtype=INT8, zero=0)
    value = graph.node("Transpose", graph.held("images"), name="last", perm=[0, 2, 3, 1])
    weight = graph.node("Transpose", graph.weight("w", (4, 3)), name="turned", perm=[1, 0])
    value = graph.node("MatMul", graph.held(value), weight, name="matmul")
    return graph.bytes(graph.node("Transpose", graph.held(value, 0.1), name="first", perm=[0, 3, 1, 2]))


def bare(missing, dtype=UINT8):
    """An integer convolution, then one with something left in float."""
    graph = Graph(dtype=dtype, zero=128 if dtype == UINT8 else 0)
    bias = "int32" if dtype == UINT8 else "float"
    value = graph.held(graph.conv(graph.held("images"), "first", bias=bias), 0.1)
    value = graph.node("Neg", value, name="negative") if missing == "its input" else value
    if missing == "its weight":
        value = graph.node("Conv", value, graph.store("w", np.ones((4, 4, 1, 1), np.float32)), name="second")
    else:
        value = graph.conv(value, "second", inputs=4, bias=bias, bias_scale=0.1 * 0.01)
    value = value if missing == "its output" else graph.held(value, 0.1)
    return graph.bytes(graph.node("Neg", value, name="last"))


BROKEN = {
    "int8 on a CPU": (one_conv(INT8, 3), CPU, "activation-type", "slow", ["images.q", "conv.q"], "Move the zero point"),
    "a zero point": (symmetric(zero=3, out_zero=0), TRT, "activation-type", "refused", ["images.q"], "Quantize again"),
    "a zero point of 128": (symmetric(dtype=UINT8, zero=128), TRT, "activation-type", "refused", ["images.q", "conv.q"], "Move"),
    "uint8 from zero": (symmetric(dtype=UINT8, zero=0), TRT, "activation-type", "wrong", ["images.q", "conv.q"], "Quantize"),
    "a ReLU with half of its integers": (relu(128, False), CPU, "unused-range", "slow", ["relu.q"], "Let the integers"),
    "a ReLU6 with half of its integers": (relu(0, False, top=6.0, scale=12 / 255), CPU, "unused-range", "slow", ["relu.q"], "Let the"),
    "a scale for each channel": (one_conv(scales=(0.1, 0.2, 0.3, 0.4)), CPU, "activation-type", "slow", ["conv.q"], "Quantize"),
    "one scale for a weight": (one_conv(per_channel=False), CPU, "weight-type", "inexact", ["conv"], "a scale for each channel"),
    "the wrong axis": (one_conv(axis=1), CPU, "weight-type", "slow", ["conv"], "Quantize again"),
    "a uint8 weight": (symmetric(integers=UINT8, middle=128), TRT, "weight-type", "refused", ["conv"], "Quantize again"),
    "an int32 bias": (symmetric(bias="int32"), TRT, "bias-type", "refused", ["conv"], "Store the bias in float"),
    "a bias on a scale of its own": (one_conv(bias_scale=0.001), CPU, "bias-type", "wrong", ["conv"], "on the scale"),
    "a bias that does not fit": (
        one_conv(scale=1e-11, bias_scale=5e-13), CPU, "bias-overflow", "wrong", ["conv"], "larger weight scale",
    ),
    "one side in float": (residual(False, True), CPU, "residual", "slow", ["add"], "Quantize both sides"),
    "the convolution rounded": (residual(True, True, INT8), TRT, "residual", "slow", ["add"], "Remove the Q/DQ"),
    "rounded before the ReLU": (relu(0, True), CPU, "rounded-twice", "slow", ["conv.q"], "Remove this Q/DQ"),
    "rounded before the ReLU on a GPU": (relu(0, True, INT8), TRT, "rounded-twice", "slow", ["conv.q"], "Remove this Q/DQ"),
    "a pool with two scales": (
        moved("MaxPool", 0.2, kernel_shape=[2, 2]), CPU, "shared-scale", "slow", ["moves"], r"one scale \(--fix\)",
    ),
    "a concat with two scales": (moved("Concat", 0.2, axis=1), CPU, "shared-scale", "slow", ["moves"], "quantize again"),
    "a float input": (bare("its input"), CPU, "not-quantized", "slow", ["second"], "Quantize it too"),
    "a float weight": (bare("its weight"), CPU, "not-quantized", "slow", ["second"], "Quantize it too"),
    "a float output": (bare("its output"), CPU, "not-quantized", "slow", ["second"], "Quantize it too"),
    "an island": (between("HardSwish", "Neg"), CPU, "float-island", "slow", ["hardswish"], "Write it with operators"),
    "a batch norm behind a convolution": (normed(), CPU, "batch-norm", "slow", ["norm"], r"Fold it \(--fix\)"),
    "a sum of two convolutions": (residual(False, False), CPU, "residual", "slow", ["add"], "Quantize both sides"),
    "a batch norm in training": (normed(training=1), CPU, "batch-norm", "wrong", ["norm"], r"network\.eval\(\)"),
    "a free image size": (one_conv(shape=("N", 3, "H", 8)), CPU, "dynamic-shape", "slow", ["images"], "one image size"),
}  # fmt: skip
"""A graph, a target, and the one rule it breaks there: what it costs, at which nodes, and the repair."""

SOUND = {
    "uint8 on a CPU": (one_conv(), CPU),
    "symmetric int8 on a GPU": (symmetric(), TRT),
    "a ReLU that starts at its lowest integer": (relu(0, False), CPU),
    "a ReLU6 to its end": (relu(0, False, top=6.0, scale=6.0006 / 255), CPU),
    "a ReLU on a GPU": (relu(0, False, INT8), TRT),
    "a float bias, which it rounds itself": (one_conv(bias="float"), CPU),
    "both sides of an addition": (residual(True, True), CPU),
    "the shortcut alone": (residual(False, True, INT8), TRT),
    "a pool on one scale": (moved("MaxPool", 0.1, kernel_shape=[2, 2]), CPU),
    "a concat on one scale": (moved("Concat", 0.1, axis=1), CPU),
    "a kernel the target has": (between("Sigmoid"), CPU),
    "a weight transposed behind its dequantizer": (transposed(), TRT),
    "a float output on a GPU": (bare("its output", INT8), TRT),
    "a float bias on any scale": (symmetric(scale=1e-11), TRT),
    "one batch size": (one_conv(shape=(2, 3, 8, 8)), CPU),
    "a batch norm that cannot be folded": (normed(reads="relu"), CPU),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_rule_finds_what_breaks_it_and_nothing_else(case):
    content, target, rule, cost, nodes, repair = BROKEN[case]
    findings = lint(content, target)
    assert {(finding.rule, finding.cost) for finding in findings} == {(rule, cost)}
    assert [finding.node for finding in findings] == nodes
    for finding in findings:
        assert finding.why
        assert re.search(repair, finding.repair)


@pytest.mark.parametrize("case", SOUND)
def test_the_nearest_graph_that_keeps_every_rule_has_no_findings(case):
    assert lint(*SOUND[case]) == ()


def test_a_batch_norm_behind_integers_is_not_folded_by_us():
    findings = {finding.rule: finding for finding in lint(normed(quantized=True), CPU)}
    assert findings["batch-norm"].repair == "Fold it before quantizing: compress fold, then compress quantize."


def test_every_rule_is_broken_by_some_graph_here():
    assert {rule for _, _, rule, _, _, _ in BROKEN.values()} == set(RULES) - {"operator-form"}


@pytest.mark.parametrize("case", BROKEN)
def test_openvino_is_spared_what_costs_nothing_there(case):
    content = BROKEN[case][0]
    assert not {finding.rule for finding in lint(content, OPENVINO)} & OPENVINO.spares
    assert set(RULES) >= OPENVINO.spares


def test_a_graph_without_integers_is_not_asked_for_them():
    graph = Graph()
    value = graph.node("Conv", "images", graph.store("w", np.ones((4, 3, 3, 3), np.float32)), name="conv")
    assert lint(graph.bytes(graph.node("Relu", value, name="relu")), CPU) == ()


def test_operators_that_hold_their_integers_inside_are_named():
    graph = Graph()
    grid = graph.store("s", np.float32(0.05)), graph.store("z", np.uint8(128))
    weight = [
        graph.store("w", np.ones((4, 3, 3, 3), np.int8)),
        graph.store("ws", np.float32(0.01)),
        graph.store("wz", np.int8(0)),
    ]
    value = graph.node("QuantizeLinear", "images", *grid, name="q")
    value = graph.node("QLinearConv", value, *grid, *weight, *grid, name="conv")
    content = graph.bytes(graph.node("DequantizeLinear", value, *grid, name="d"))
    for target, cost in ((CPU, "slow"), (TRT, "refused")):
        (found,) = [finding for finding in lint(content, target) if finding.rule == "operator-form"]
        assert (found.node, found.cost) == ("conv", cost)


def test_a_node_without_a_name_is_called_by_what_it_computes():
    graph = Graph(dtype=INT8, zero=3)
    content = graph.bytes(graph.held(graph.conv(graph.held("images"), "conv", bias="int32")))
    model = onnx.load_model_from_string(content)
    for node in model.graph.node:
        node.name = ""
    assert lint(model.SerializeToString(), CPU)[0].node == "QuantizeLinear of images.q"


def test_rules_can_be_ignored_by_name():
    content, target, rule, *_ = BROKEN["int8 on a CPU"]
    assert lint(content, target, [rule]) == ()
    with pytest.raises(UsageError, match="unknown rule 'activation-typ': did you mean activation-type"):
        lint(content, target, ["activation-typ"])


def test_findings_are_values():
    assert lint(*BROKEN["int8 on a CPU"][:2])[0] == Finding(
        "images.q",
        "activation-type",
        "slow",
        "ONNX Runtime on a CPU computes on uint8, and leaves additions of int8 and what feeds them in float.",
        "Move the zero point by 128 (--fix), which changes no number.",
    )


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int4", "uint4", "float8_e4m3fn"])
def test_other_integers_than_those_of_eight_bits_have_no_range_left_over(dtype):
    """No target here computes on them; what is found is that a layer stays float, never a range to narrow."""
    graph = Graph(dtype=np.dtype(getattr(ml_dtypes, dtype, dtype)), zero=0, opset=21)
    value = graph.node("Relu", graph.conv(graph.held("images"), "conv", bias="float"), name="relu")
    found = lint(graph.bytes(graph.held(value)), CPU)
    assert found
    assert "unused-range" not in {each.rule for each in found}
