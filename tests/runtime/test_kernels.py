"""Every kernel a runtime calls is known by the layer it belongs to."""

from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import small_onnx

from compress import checkpoint
from compress.export import export, onnx_layers
from compress.importing import import_checkpoint
from compress.runtime import kernels, open_session
from compress.runtime.session import TellsTimes

RESIDUAL = """
<ir_version: 10, opset_import: ["": 20]>
block (float[N, 4, 8, 8] images) => (float[N, 4, 8, 8] out) <float[4, 4, 1, 1] one, float[4, 4, 1, 1] two, float[4, 4, 1, 1] short>
{
    [first] a = Conv (images, one)
    [Relu] b = Relu (a)
    [second] c = Conv (b, two)
    [short] d = Conv (images, short)
    [Add] e = Add (c, d)
    [Relu_2] out = Relu (e)
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    export(checkpoint.load(Path(__file__).parents[2] / "models" / "digits.safetensors"), made / "digits.onnx")
    export(import_checkpoint(None, "resnet20", None, (3, 32, 32)), made / "resnet20.onnx")
    small_onnx.write(made / "plain.onnx")
    small_onnx.write(made / "quantized.onnx", small_onnx.QUANTIZED)
    return made


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["digits", "resnet20", "plain", "quantized"])
def test_every_layer_of_a_file_has_the_time_of_its_own_kernels(folder: Path, runtime: str, name: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    path = folder / f"{name}.onnx"
    session = open_session(runtime, path)
    assert isinstance(session, TellsTimes)
    nodes = session.node_seconds(np.random.default_rng(0).standard_normal((2, *session.input_shape), dtype=np.float32))
    assert all(node.seconds >= 0 for node in nodes) and sum(node.seconds for node in nodes) > 0
    layers = [layer.name for layer in onnx_layers.layers(path.read_bytes())]
    assert len(layers) == len(set(layers)) > 1
    assert sorted(node.layer for node in nodes if node.layer) == sorted(layers)


def test_a_fused_kernel_belongs_to_the_nearest_product_that_no_other_kernel_goes_by() -> None:
    model = onnx.parser.parse_model(RESIDUAL)
    called = {
        "Relu_nchwc": "Conv",
        "short_nchwc": "Conv",
        "Relu_2_token_7": "FusedConv",
        "ReorderOutput": "ReorderOutput",
    }
    owners = {"Relu_nchwc": "first", "short_nchwc": "short", "Relu_2_token_7": "second"}
    assert kernels.layers(model, called) == owners


def test_a_kernel_that_does_not_multiply_belongs_to_no_layer() -> None:
    model = onnx.parser.parse_model(RESIDUAL)
    assert kernels.layers(model, {"Add": "QLinearAdd", "Relu": "Relu", "Transpose_token_3": "Transpose"}) == {}


def test_one_slow_run_in_four_does_not_change_what_stands_for_a_kernel() -> None:
    assert kernels.steady([9.0, 1.0, 1.0, 1.0, 50.0]) == 1.0


def test_the_layers_of_a_file_are_those_of_its_checkpoint(folder: Path) -> None:
    from compress.layers import layers

    source = checkpoint.load(Path(__file__).parents[2] / "models" / "digits.safetensors")
    content = (folder / "digits.onnx").read_bytes()
    before, after = layers(source), onnx_layers.layers(content)
    for field in ("name", "inputs", "outputs", "macs", "precision"):
        assert [getattr(layer, field) for layer in after] == [getattr(layer, field) for layer in before], field


def test_grouped_convolutions_and_matrices_of_either_side_up_have_their_channels() -> None:
    text = """
    <ir_version: 10, opset_import: ["": 20]>
    g (float[N, 6, 4, 4] images) => (float[N, 5] logits) <float[12, 2, 1, 1] grouped, float[12, 5] matrix>
    {
        a = Conv <group = 3> (images, grouped)
        b = GlobalAveragePool (a)
        c = Flatten (b)
        logits = Gemm (c, matrix)
    }
    """
    found = onnx_layers.layers(small_onnx.model(text).SerializeToString())
    assert [(layer.inputs, layer.outputs, layer.macs) for layer in found] == [(6, 12, 12 * 2 * 16), (12, 5, 60)]
