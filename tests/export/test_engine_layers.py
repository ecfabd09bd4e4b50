"""What an engine's list of layers says of the types they multiply in."""

import pytest
import small_onnx

from compress.export.engine_layers import Layer, asked, built, layers

RTX = """Layers:
Name: __mye0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata:
Name: __myl_Quantize, LayerType: kgen, Inputs: [ { Name: images, Dimensions: [-1,3,8,8], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [ { Name: s, Dimensions: [1], Datatype: Float, Format: x }], Outputs: [ { Name: q, Dimensions: [-1,4,8,8], Datatype: Int8, Format: x }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: quantize][ONNX Layer: first]
Name: first_0, LayerType: correlation, Inputs: [ { Name: q, Dimensions: [-1,4,8,8], Datatype: Int8, Format: x }], Constants: [ { Name: w, Dimensions: [4,4,3,3], Datatype: Int8, Format: x }, { Name: a, Dimensions: [1], Datatype: Float, Format: x }, { Name: b, Dimensions: [1], Datatype: Float, Format: x }], Outputs: [ { Name: c, Dimensions: [-1,4,8,8], Datatype: Float, Format: x }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: first][ONNX Layer: weight/DequantizeLinear]
Name: second_0, LayerType: gemm, Inputs: [ { Name: c, Dimensions: [-1,4], Datatype: Half, Format: x }, { Name: r, Dimensions: [-1,4], Datatype: Float, Format: x }], Constants: [ { Name: w, Dimensions: [4,5], Datatype: Half, Format: x }, { Name: a, Dimensions: [1], Datatype: Float, Format: x }], Outputs: [ { Name: d, Dimensions: [-1,5], Datatype: Float, Format: x }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: second]
I/O Tensors:
 Name: images, IOMode: Input, DataType: Float, Dimensions: [-1,3,8,8], Location: Device
"""
"""As tensorrt_rtx 1.7 lists them."""

TENSORRT_10 = """Layers:
Name: first + relu, LayerType: CaskConvolution, Inputs: [ { Name: q, Dimensions: [-1,4,8,8], Format/Datatype: Thirty-two wide channel vectorized row major Int8 format }], Outputs: [ { Name: c, Dimensions: [-1,4,8,8], Format/Datatype: Row major linear FP32 }], ParameterType: Convolution, Weights: { Type: Int8, Count: 432}, Metadata: [ONNX Layer: first][ONNX Layer: relu]
Name: __myl_MulSum_myl0_0, LayerType: kgen, Inputs: [ { Name: __mye116_dconst, Dimensions: [10,10], Format/Datatype: BFloat16 }, { Name: x, Dimensions: [10,1], Format/Datatype: BFloat16 }], Outputs: [ { Name: y, Dimensions: [1,10], Format/Datatype: Float }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: second]
"""
"""As tensorrt 10 does."""


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (RTX, {"first": "int8", "quantize": "fp32", "weight/DequantizeLinear": "int8", "second": "fp16"}),
        (TENSORRT_10, {"first": "int8", "relu": "int8", "second": "bf16"}),
        ("", {}),
        ("Layers:\nfirst\nsecond\n", {}),
    ],
)
def test_the_type_of_a_layer_is_that_of_its_input_and_its_weights(listing, found):
    assert built(listing) == found


def named(text):
    model = small_onnx.model(text)
    for node in model.graph.node:
        node.name = node.output[0]
    return model.SerializeToString()


def test_what_a_layer_asks_for_is_read_through_its_dequantizers():
    text = small_onnx.QUANTIZED.replace("uint8 middle = {128}", "int8 middle = {0}")
    assert asked(named(text)) == {"convolved": "int8", "logits": "fp32"}
    assert asked(named(small_onnx.CLASSIFIER.replace("BATCH", "N"))) == {"convolved": "fp32", "logits": "fp32"}


def test_what_only_moves_numbers_does_not_hide_their_type():
    text = small_onnx.QUANTIZED.replace("uint8 middle = {128}", "int8 middle = {0}").replace(
        "convolved = Conv <pads = [1, 1, 1, 1]> (images_d, weight_d)",
        "turned = Transpose <perm = [0, 1, 3, 2]> (weight_d) convolved = Conv <pads = [1, 1, 1, 1]> (images_d, turned)",
    )
    assert asked(named(text))["convolved"] == "int8"


def test_a_layer_of_which_nothing_is_listed_is_not_taken_for_built():
    content = named(small_onnx.CLASSIFIER.replace("BATCH", "N"))
    assert layers(content, "") == (Layer("convolved", "fp32", None), Layer("logits", "fp32", None))
