"""Quantizing ONNX files: one exported here, and others written by hand as another tool would."""

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_onnx
from onnx import numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from compress import checkpoint
from compress.data.arrays import ArraySplit, Part
from compress.data.load import load
from compress.errors import CompressError, UsageError
from compress.evaluate import on_test
from compress.export import export
from compress.export.artifact import read_sidecar, sidecar
from compress.export.half import convert
from compress.export.settings import Settings
from compress.quantize.onnx_static import quantize
from compress.quantize.onnxruntime_tools import written
from compress.quantize.step import Quantize
from compress.quantize.target import RUN, target
from compress.runtime.onnxruntime import OnnxSession

IMAGES = 128
DIGITS = Path(__file__).parents[2] / "models" / "digits.safetensors"
FOREIGN = (
    small_onnx.CLASSIFIER.replace("3, 8, 8] images", "1, 32, 32] images")
    .replace("[4, 3, 3, 3]", "[4, 1, 3, 3]")
    .replace("[5, 4] matrix, float[5] bias", "[10, 4] matrix, float[10] bias")
    .replace("5] logits", "10] logits")
)
"""Another tool's classifier of digits: its nodes have no names, nothing lies beside it."""
OLD = (
    FOREIGN.replace("ir_version: 10", "ir_version: 6")
    .replace(": 20]", ": 11]")
    .replace("<float[4", "<float[4] gain, float[4] offset, float[4] mean, float[4] variance, float[4", 1)
    .replace("Relu (convolved)", "Relu (normed)")
    .replace("    positive", "    normed = BatchNormalization (convolved, gain, offset, mean, variance)\n    positive")
)
"""The same with a batch norm, of an opset that has no scale for each channel."""


@cache
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "digits.onnx"
    export(checkpoint.load(DIGITS), path)
    return path


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """For a target's name, what quantizing for it gave."""
    folder = tmp_path_factory.mktemp("made")
    return cache(lambda name: quantized(source, folder / f"{name}.onnx", target=name))


def quantized(path, output=None, data=None, **settings):
    output = output or path.with_name("quantized.onnx")
    return quantize(path, output, data or digits().learning, Quantize(images=IMAGES, **settings))


def calibrating_on(images):
    """The digits' data with these calibration images (N, H, W, C)."""
    split = ArraySplit(Part(images, np.arange(len(images)) % 10), np.arange(len(images)))
    return dataclasses.replace(digits().learning, calibration=split)


def foreign(folder, text=FOREIGN, batch="N"):
    """A file of another tool; variances are positive."""
    model = small_onnx.model(text, batch)
    for tensor in model.graph.initializer:
        if tensor.name == "variance":
            tensor.CopyFrom(numpy_helper.from_array(np.linspace(0.5, 2, 4, dtype=np.float32), tensor.name))
    path = folder / "foreign.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def graph(result):
    return onnx.load(result.artifact.path).graph


def top1(path):
    return on_test(OnnxSession(path.read_bytes()), digits(), runtime="onnxruntime").measurements[0].values[0]


@pytest.mark.parametrize("name", RUN)
def test_accuracy_stays_within_a_point_and_lint_finds_no_error(source, made, name):
    result = made(name)
    assert top1(result.artifact.path) == pytest.approx(top1(source), abs=1)
    assert result.integer_macs == 100
    assert result.top1_agreement >= 0.99
    assert {finding.cost for finding in result.findings} <= {"slow"}
    assert result.notes[0] == f"calibrated on {IMAGES} images"


@pytest.mark.parametrize("name", RUN)
def test_the_integers_are_those_of_the_target(made, name):
    wanted, found = target(name), graph(made(name))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.initializer}
    zeros = [stored[node.input[2]] for node in found.node if node.op_type == "QuantizeLinear"]
    assert {zero.dtype.name for zero in zeros} == {wanted.activations.dtype}
    assert any(zero.any() for zero in zeros) != wanted.activations.symmetric
    layers = [node for node in found.node if node.op_type in ("Conv", "Gemm")]
    behind = {node.output[0]: node for node in found.node if node.op_type == "DequantizeLinear"}
    for node in layers:
        integers, scales = (stored[each] for each in behind[node.input[1]].input[:2])
        assert (integers.dtype, integers.min() >= -127, scales.shape) == (np.int8, True, integers.shape[:1])
        biases = behind[node.input[2]].input[0] if node.input[2] in behind else node.input[2]
        assert stored[biases].dtype == (np.int32 if wanted.bias == "int32" else np.float32)
    (last,) = (node for node in found.node if found.output[0].name in node.output)
    assert (last.op_type, found.output[0].name) == ("Gemm", "logits")


def test_onnxruntime_computes_every_layer_in_integers(made):
    assert OnnxSession(made("onnxruntime-cpu").artifact.path.read_bytes()).integer_macs() == 100


def test_tensorrt_builds_every_layer_in_int8(made):
    pytest.importorskip("tensorrt_rtx")
    from compress.export.tensorrt import build

    engine = build(made("tensorrt").artifact.path.read_bytes(), Settings(compute_capability="8.6"))
    assert len(engine.layers) == 8
    assert {layer.asked for layer in engine.layers} == {"int8"}
    assert "int8" in {layer.built for layer in engine.layers}


def test_the_sidecar_goes_on_from_that_of_the_float_file(source, made):
    result = made("openvino")
    before, after = read_sidecar(source), read_sidecar(result.artifact.path)
    assert (after.source, after.macs, after.dataset) == (before.source, before.macs, before.dataset)
    assert (after.precision, after.target, after.size_bytes) == (
        "int8",
        "openvino",
        result.artifact.path.stat().st_size,
    )
    assert after.tools["onnxruntime"]
    assert after.settings["images"] == str(IMAGES)


def test_the_same_file_and_images_give_the_same_bytes(source, made, tmp_path):
    quantized(source, tmp_path / "again.onnx", target="tensorrt")
    assert (tmp_path / "again.onnx").read_bytes() == made("tensorrt").artifact.path.read_bytes()


@pytest.mark.parametrize("name", RUN)
def test_a_file_of_another_tool_and_of_an_old_opset_is_quantized(tmp_path, name):
    path = foreign(tmp_path, OLD)
    before = path.read_bytes()
    result = quantized(path, target=name)
    assert (result.integer_macs, path.read_bytes()) == (100, before)
    assert result.top1_agreement > 0.9
    assert "BatchNormalization" not in {node.op_type for node in graph(result).node}
    found = read_sidecar(result.artifact.path)
    assert (found.network, found.input_shape, found.macs) == ("foreign", (1, 32, 32), 32 * 32 * 4 * 9 + 4 * 10)
    assert found.parameters == 4 * 9 + 4 + 4 * 10 + 10  # the batch norm has become a bias


@pytest.mark.parametrize("batch", ["1", "48"])
def test_a_file_for_a_fixed_batch_is_shown_as_many_at_a_time(tmp_path, batch):
    result = quantized(foreign(tmp_path, OLD, batch))
    assert result.notes[0] == f"calibrated on {IMAGES // int(batch) * int(batch)} images"
    assert result.integer_macs == 100
    assert OnnxSession(result.artifact.path.read_bytes()).batch == int(batch)


def test_an_excluded_layer_stays_float_and_is_named(source, tmp_path):
    result = quantized(source, tmp_path / "out.onnx", exclude=("block2", "conv3"))
    assert [refusal.layer for refusal in result.artifact.kept] == ["block2.conv1", "block2.conv2", "conv3"]
    floats = {tensor.name for tensor in graph(result).initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    layers = {node.name: node.input[1] in floats for node in graph(result).node if node.op_type == "Conv"}
    assert [name for name, left in layers.items() if left] == ["block2.conv1/Conv", "block2.conv2/Conv", "conv3/Conv"]
    assert 0 < result.integer_macs < 100
    assert not [finding for finding in result.findings if finding.rule == "not-quantized"]
    with pytest.raises(UsageError, match=r"unknown layer 'block2.conv9'.*block2.conv1"):
        quantized(source, tmp_path / "out.onnx", exclude=("block2.conv9",))


def test_what_is_no_float_classifier_with_layers_is_refused(source, made, tmp_path):
    half = tmp_path / "half.onnx"
    half.write_bytes(convert(source.read_bytes(), "bf16").content)
    pool = foreign(
        tmp_path,
        """<ir_version: 10, opset_import: ["": 20]>
        pool (float[N, 1, 32, 32] images) => (float[N, 1] logits) { p = GlobalAveragePool (images)
        logits = Flatten (p) }""",
    )
    refused = {
        made("tensorrt").artifact.path: "is quantized already: it has QuantizeLinear",
        half: "computes in half precision",
        pool: "has no convolution and no linear layer",
        small_onnx.write(tmp_path / "colours.onnx"): r"takes images of shape \(N, 3, 8, 8\)",
    }
    for path, words in refused.items():
        with pytest.raises(CompressError, match=words):
            quantized(path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("images", "batch", "words"),
    [
        (np.full((8, 32, 32, 1), 200, np.uint8), "N", "calibration on 8 images shows nothing"),
        (np.zeros((1, 32, 32, 1), np.uint8), "N", "1 calibration images are too few .* Give 2 or more"),
        (np.zeros((8, 32, 32, 1), np.uint8), "9", "takes 9 images at a time, and 8 .* Give 9 or more"),
    ],
)
def test_calibration_images_that_decide_nothing_are_refused(tmp_path, images, batch, words):
    path = foreign(tmp_path, OLD, batch)
    with pytest.raises(CompressError, match=words):
        quantized(path, data=calibrating_on(images))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def scaled(path, name, factor):
    """The file with the numbers of one tensor multiplied."""
    model = onnx.load(path)
    (tensor,) = (each for each in model.graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    path.write_bytes(model.SerializeToString())
    return path


def test_infinity_inside_and_answers_that_do_not_vary_are_refused(tmp_path):
    with pytest.raises(CompressError, match="calibration met NaN or infinity inside the network"):
        quantized(scaled(foreign(tmp_path), "weight", 2e37))
    with pytest.raises(CompressError, match="nothing to go by: no logit varies"):
        quantized(scaled(foreign(tmp_path), "weight", 1e-30))
    assert not sidecar(tmp_path / "quantized.onnx").exists()


def test_a_network_of_which_nothing_becomes_integers_is_refused(tmp_path):
    wide = foreign(
        tmp_path,
        """<ir_version: 10, opset_import: ["": 20]>
        wide (float[N, 1, 32, 32] images) => (float[N, 10] logits) <double[1024, 10] matrix>
        { flat = Flatten (images) double = Cast <to = 11> (flat) product = MatMul (double, matrix)
        logits = Cast <to = 1> (product) }""",
    )
    with pytest.raises(CompressError, match=r"no layer of .* was quantized: .* Exclude less, or export .* in FP32"):
        quantized(wide)
    with pytest.raises(CompressError, match="all were excluded"):
        quantized(foreign(tmp_path, OLD), exclude=("convolved", "logits"))


def test_what_is_not_known_for_an_operator_of_one_runtime_is_not_written_down(tmp_path):
    path = foreign(tmp_path, OLD)
    beside = sidecar(quantized(path).artifact.path)
    assert beside.exists()
    gelu = OLD.replace('"": 11', '"": 11, "com.microsoft": 1').replace("Relu", "com.microsoft.Gelu")
    result = quantized(foreign(tmp_path, gelu))
    assert result.integer_macs is None
    assert result.notes[1] == "an unknown share of the multiply-accumulates on integers"
    assert not beside.exists()


def test_a_failure_of_onnxruntimes_tools_is_a_refusal(tmp_path):
    def fail(output):
        quant_pre_process(tmp_path / "none.onnx", output)

    with pytest.raises(CompressError, match=r"cannot follow the file: .*none\.onnx.* Export it again"):
        written(fail, "the file")


def test_a_simulated_target_or_another_ending_is_refused(source, tmp_path):
    for words in ({"target": "torch"}, {"output": tmp_path / "out.safetensors"}):
        with pytest.raises(UsageError, match=r"give -o NAME\.onnx and a target other than torch"):
            quantized(source, **words)
