"""An ONNX graph in half precision, against FP32 and against another converter."""

import numpy as np
import onnx
import pytest
import small_onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from compress.errors import CompressError, Refusal, UsageError
from compress.export.half import LARGEST, convert, images_for
from compress.runtime.onnxruntime import OnnxSession

FLOAT, FLOAT16, BFLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16

STEEP = """
<ir_version: 10, opset_import: ["": 20]>
steep (float[N, 1, 4, 4] images) => (float[N, 16] logits)
<float up = {PEAK}, float down = {DOWN}>
{
    [raise] high = Mul (images, up)
    [square] squared = Mul (high, high)
    [lower] low = Mul (squared, down)
    logits = Flatten (low)
}
"""


def steep(peak):
    """x -> (peak x)^2 / peak^2, whose middle reaches peak^2 for images between -1 and 1."""
    return small_onnx.model(STEEP.replace("PEAK", str(peak)).replace("DOWN", str(peak**-2))).SerializeToString()


def answers(content, shown):
    return OnnxSession(content, optimise=False)(shown)


def distance(logits, exact):
    return np.abs(logits - exact).max() / np.abs(exact).max()


def types(content):
    """The type of every tensor of a graph, by name."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content)).graph
    found = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def test_fp16_is_as_close_to_fp32_as_its_eleven_bits_allow(nets):
    _, content, shown = nets("digits_cnn")
    exact, layers = answers(content, shown), 8
    tolerance = 2 * layers * 2**-11  # a layer rounds its weights once and what it computes once, to 11 bits
    assert 0 < distance(answers(convert(content, "fp16", shown).content, shown), exact) < tolerance
    assert distance(1.01 * exact, exact) > tolerance


FAINT = """
<ir_version: 10, opset_import: ["": 20]>
faint (float[N, 1, 2, 2] images) => (float[N, 1] logits)
<float[4, 1] weight = {WEIGHTS}, float up = {1e6}>
{
    [flatten] flat = Flatten (images)
    [weigh] low = MatMul (flat, weight)
    [raise] logits = Mul (low, up)
}
"""


@pytest.mark.parametrize(("weight", "kept"), [(5e-5, ["weigh"]), (7e-5, [])])
def test_a_layer_whose_weights_are_too_small_for_fp16_stays_fp32(weight, kept):
    weights = ", ".join(str(factor * weight) for factor in (1, 1e-4, -0.3, 0.7))
    content = small_onnx.model(FAINT.replace("WEIGHTS", weights)).SerializeToString()
    made = convert(content, "fp16", np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2))
    named = [refusal.layer for refusal in made.kept if "stays below 6.1e-05" in refusal.reason]
    assert named == kept
    assert (types(made.content)["weight/float16" if not kept else "weight"]) == (FLOAT if kept else FLOAT16)


@pytest.mark.parametrize("name", ["digits_cnn", "resnet20"])
def test_fp16_agrees_with_the_converter_of_onnxruntime(nets, name):
    _, content, shown = nets(name)
    other = convert_float_to_float16(onnx.load_model_from_string(content), keep_io_types=True).SerializeToString()
    ours, theirs = answers(convert(content, "fp16", shown).content, shown), answers(other, shown)
    tolerance = 1e-4  # both round the same numbers; the FP32 sums inside a layer are made in another order
    assert distance(ours, theirs) < tolerance < distance(1.01 * theirs, theirs)


@pytest.mark.parametrize(("precision", "half"), [("fp16", FLOAT16), ("bf16", BFLOAT16)])
def test_everything_between_images_and_logits_is_half(nets, precision, half):
    _, content, shown = nets("resnet20")
    made = convert(content, precision, shown)
    found = types(made.content)
    assert made.kept == ()
    assert (found.pop("images"), found.pop("logits")) == (FLOAT, FLOAT)
    assert FLOAT not in found.values()
    assert half in found.values()
    assert len(made.content) < 0.6 * len(content)


def test_bf16_is_answered_by_openvino_as_its_eight_bits_allow(nets):
    pytest.importorskip("openvino")
    from compress.runtime.openvino import OpenvinoSession

    _, content, shown = nets("digits_cnn")
    exact, layers = answers(content, shown), 8
    tolerance = 2 * layers * 2**-8
    assert 0 < distance(OpenvinoSession(convert(content, "bf16").content)(shown), exact) < tolerance
    assert distance((1 + 2 * tolerance) * exact, exact) > tolerance


def test_the_same_graph_and_images_give_the_same_bytes_names_and_origin(nets):
    _, content, shown = nets("resnet20")
    made = convert(content, "fp16", shown).content
    assert made == convert(content, "fp16", shown).content
    before, after = onnx.load_model_from_string(content), onnx.load_model_from_string(made)
    assert after.metadata_props == before.metadata_props
    assert {node.name for node in before.graph.node} < {node.name for node in after.graph.node}


def test_a_layer_that_overflows_stays_fp32_and_is_named():
    shown = np.random.default_rng(0).uniform(-1, 1, (8, 1, 4, 4)).astype(np.float32)
    content = steep(1000.0)
    exact = answers(content, shown)
    made = convert(content, "fp16", shown)
    assert [refusal.layer for refusal in made.kept] == ["square", "lower"]
    assert all("within a factor of 2 of where FP16 ends (65504)" in refusal.reason for refusal in made.kept)
    assert distance(answers(made.content, shown), exact) < 2**-9
    whole = convert_float_to_float16(onnx.load_model_from_string(content), keep_io_types=True).SerializeToString()
    assert not distance(answers(whole, shown), exact) < 0.01


@pytest.mark.parametrize(("share", "kept"), [(0.4, False), (0.6, True)])
def test_a_layer_within_a_factor_of_two_of_overflowing_stays_fp32(share, kept):
    shown = np.ones((2, 1, 4, 4), np.float32)
    assert bool(convert(steep(float(np.sqrt(share * LARGEST))), "fp16", shown).kept) is kept


def test_bf16_reaches_as_far_as_fp32():
    shown = np.ones((2, 1, 4, 4), np.float32)
    assert convert(steep(1000.0), "bf16").kept == ()
    assert convert(steep(1000.0), "fp16", shown).kept


def test_an_operator_without_a_half_form_stays_fp32_and_is_named():
    text = small_onnx.CLASSIFIER.replace(
        "logits = Gemm <transB = 1> (flat, matrix, bias)", 'logits = Einsum <equation = "ni,ci->nc"> (flat, matrix)'
    )
    model = small_onnx.model(text)
    model.graph.node[-1].name = "classify"
    made = convert(model.SerializeToString(), "bf16")
    assert made.kept == (Refusal("classify", "Einsum has no form that computes in bfloat16"),)
    assert types(made.content)["matrix"] == FLOAT


def test_a_graph_of_an_older_opset_is_converted_first():
    text = small_onnx.CLASSIFIER.replace('"": 20', '"": 17')
    made = convert(small_onnx.model(text).SerializeToString(), "bf16")
    assert onnx.load_model_from_string(made.content).opset_import[0].version == 22
    assert made.kept == ()


def test_fp16_without_images_is_refused(nets):
    _, content, shown = nets("digits_cnn")
    for none in (None, shown[:0]):
        with pytest.raises(
            UsageError, match=r"fp16 was asked for without images.*Give calibration images, or use bf16"
        ):
            convert(content, "fp16", none)


def test_images_that_give_nan_are_refused(nets):
    _, content, shown = nets("digits_cnn")
    broken = shown.copy()
    broken[3, 0, 0, 0] = np.nan
    with pytest.raises(CompressError, match=r"gives NaN in .* for a calibration image"):
        convert(content, "fp16", broken)


BRANCH = """
<ir_version: 10, opset_import: ["": 20]>
branch (float[N, 3, 8, 8] images) => (float[N, 192] logits)
<bool yes = {1}>
{
    chosen = If (yes) <
        then_branch = one () => (float[N, 3, 8, 8] same) { same = Identity (images) },
        else_branch = two () => (float[N, 3, 8, 8] other) { other = Neg (images) }
    >
    logits = Flatten (chosen)
}
"""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (small_onnx.QUANTIZED, "QuantizeLinear .* holds integers"),
        (BRANCH, "If .* is a branch or a loop"),
        (
            small_onnx.CLASSIFIER.replace(
                "logits = Gemm <transB = 1> (flat, matrix, bias)",
                "low = Cast <to = 10> (flat) back = Cast <to = 1> (low) logits = Gemm <transB = 1> (back, matrix, bias)",
            ),
            "Cast .* computes in half precision already",
        ),
    ],
)
def test_a_graph_that_is_not_plain_fp32_is_refused(text, problem):
    with pytest.raises(CompressError, match=f"cannot be turned to half precision: {problem}"):
        convert(small_onnx.model(text).SerializeToString(), "bf16")


def test_images_for_fp16_are_those_for_calibration(nets):
    shown = images_for(nets("digits_cnn")[0], "digits")
    assert shown.shape == (64, 1, 32, 32)
    assert shown.dtype == np.float32
    assert shown.std() > 0.1
