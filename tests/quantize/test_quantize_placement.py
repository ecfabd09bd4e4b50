"""Integers are where the target wants them, and every layer left in float has a reason."""

import pytest
import torch
from quantizable import CASES, NETWORKS, SHAPE, case, images
from torch import nn
from torch.nn import functional

from compress.quantize.graph import insert
from compress.quantize.placement import refusals
from compress.quantize.ptq import quantize
from compress.quantize.sequence import KINDS, A, Q, arguments, calls, trace
from compress.quantize.target import target

every = pytest.mark.parametrize(("name", "wanted"), CASES)


def rounded(value):
    """Whether a value is rounded to integers right after it is computed."""
    return [user.target for user in value.users] == [Q.quantize_per_tensor.default]


@every
def test_every_convolution_and_linear_layer_reads_integers(name, wanted):
    quantized = case(name, wanted)
    layers = [call for call in calls(quantized.rebuilt) if KINDS.get(call.target) in ("conv", "linear")]
    assert layers
    for call in layers:
        value, weight = arguments(call)[:2]
        assert value.target is Q.dequantize_per_tensor.default
        assert weight.target is Q.dequantize_per_channel.default
    assert quantized.result.refusals == ()


@every
def test_the_logits_are_not_rounded(name, wanted):
    rebuilt = case(name, wanted).rebuilt
    (output,) = rebuilt.graph.find_nodes(op="output")
    assert output.all_input_nodes[0].target is A.linear.default


@pytest.mark.parametrize("wanted", ["onnxruntime-cpu", "openvino"])
def test_rounding_comes_after_the_relu_and_not_before(wanted):
    convolutions = [call for call in calls(case("residual", wanted).rebuilt) if KINDS.get(call.target) == "conv"]
    stem, first, second = convolutions
    for call in (stem, first):
        (relu,) = call.users
        assert relu.target is A.relu.default and rounded(relu)
    assert rounded(second)


def test_tensorrt_rounds_the_shortcut_and_not_the_convolution_it_adds_to():
    (add,) = [call for call in calls(case("residual", "tensorrt").rebuilt) if KINDS.get(call.target) == "add"]
    convolution, shortcut = arguments(add)[:2]
    assert KINDS[convolution.target] == "conv"
    assert shortcut.target is Q.dequantize_per_tensor.default


@pytest.mark.parametrize("name", ["residual", "joined"])
def test_tensorrt_has_no_zero_points_and_float_biases(name):
    quantized = case(name, "tensorrt")
    assert not quantized.result.tensors["quantization.zero_point"].any()
    assert {edge.dtype for edge in quantized.edges} == {"int8"}


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_has_an_integer_bias_for_every_layer_that_is_one_operator(name):
    quantized = case(name)
    layers = [call for call in calls(quantized.rebuilt) if KINDS.get(call.target) in ("conv", "linear")]
    single = [call for call in layers if KINDS[call.target] == "conv" or call.meta["val"].dim() == 2]
    assert sum(edge.dtype == "int32" for edge in quantized.edges) == len(single)


def test_what_only_moves_hands_on_the_same_scale():
    for name, wanted in (("residual", "openvino"), ("joined", "onnxruntime-cpu")):
        rebuilt = case(name, wanted).rebuilt
        moves = [call for call in calls(rebuilt) if KINDS.get(call.target) in ("slice", "pad", "max-pool")]
        assert moves
        for call in moves:
            (before,), (after,) = call.all_input_nodes, call.users
            assert before.args[1:] == after.args[1:]


def test_values_never_below_zero_keep_a_scale_of_their_own_beside_signed_ones():
    """On a shared scale zero would be no end of the range, and rounding would not be the ReLU any more."""
    first, _ = [call for call in calls(case("joined").rebuilt) if KINDS.get(call.target) == "cat"]
    positive, signed = arguments(first)[:2]
    assert positive.args[2] == 0 < signed.args[2]
    (after,) = first.users
    assert after.args[1:] == signed.args[1:]


class Shuffled(nn.Module):
    """ShuffleNet's block twice: half of the channels go on, half through a layer, and are shuffled together."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.linear = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        for layer in (self.one, self.two):
            left, right = x.chunk(2, 1)
            x = torch.cat([left, layer(right).relu()], 1)
            x = x.view(-1, 2, 4, 16, 16).transpose(1, 2).flatten(1, 2)
        return self.linear(x.mean((2, 3)))


def scales_around(rebuilt):
    """For each concatenation, the scales it reads and the one it writes on."""
    for call in calls(rebuilt):
        if KINDS.get(call.target) == "cat":
            (after,) = call.users
            yield {value.args[1:3] for value in arguments(call)[:2]}, after.args[1:3]


@pytest.mark.parametrize("wanted", ["tensorrt", "onnxruntime-cpu", "openvino"])
def test_values_that_are_never_below_zero_are_joined_on_one_scale(wanted):
    made = Shuffled().eval()
    result = quantize(made, SHAPE, target(wanted), "min-max", [images()])
    found = list(scales_around(insert(made, result.quantization, result.tensors, SHAPE)))
    assert len(found) == 2
    assert all(before == {after} for before, after in found)


def test_tensorrt_joins_everything_on_one_scale():
    """Its ranges are even about zero, so that a ReLU's values lose nothing beside signed ones."""
    found = list(scales_around(case("joined", "tensorrt").rebuilt))
    assert found
    assert all(before == {after} for before, after in found)


class Pooled(nn.Module):
    """A network that ends in a pool."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)

    def forward(self, x):
        return functional.adaptive_avg_pool2d(self.conv(x).relu(), 1).flatten(1).log_softmax(1)


def test_a_pool_that_gives_the_logits_reads_integers_and_writes_floats():
    made = Pooled().eval()
    edges = quantize(made, SHAPE, target("onnxruntime-cpu"), "min-max", [images()]).quantization.edges
    last = calls(trace(made, SHAPE))[max(edge.consumer for edge in edges)]
    assert last.target is A.avg_pool2d.default


class Odd(nn.Module):
    """Layers no target is given integers for."""

    def __init__(self):
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(3, 4, 2), nn.Conv2d(4, 4, 1)
        self.tied, self.normed = (
            nn.Linear(17, 17, bias=False),
            nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
        )

    def forward(self, x):
        x = self.normed(self.conv(self.up(x)))
        return self.tied(x).mean((1, 2)) @ self.tied.weight


def test_layers_left_in_float_are_named_with_their_reason():
    found = {
        refusal.layer: refusal.reason for refusal in refusals(trace(Odd().eval(), SHAPE), target("onnxruntime-cpu"))
    }
    assert found["up"] == "onnxruntime-cpu is given no integer form of aten::conv_transpose2d.input"
    assert found["tied"] == "its weight is used elsewhere too"
    assert "its weight is computed, not stored" in found.values()
    assert "conv" not in found


def test_layers_of_doubles_stay():
    made = nn.Sequential(nn.Flatten(), nn.Linear(768, 5).double())
    made[0].forward = lambda x: x.flatten(1).double()
    (refusal,) = refusals(trace(made.eval(), SHAPE), target("onnxruntime-cpu"))
    assert refusal.reason == "it does not compute on numbers of 32 bits"
