"""A quantized network is its data: rebuilt it is the same bit for bit, and data that does not fit is refused."""

import dataclasses
from functools import cache

import pytest
import torch
from quantizable import CASES, SHAPE, case, images, network
from torch import nn

from compress.errors import CompressError
from compress.quantize.graph import insert
from compress.quantize.ptq import quantize
from compress.quantize.sequence import KINDS, A, Q, calls
from compress.quantize.target import target

every = pytest.mark.parametrize(("name", "wanted"), CASES)


@every
def test_the_rebuilt_network_equals_the_converted_one_bit_for_bit(name, wanted):
    quantized, x = case(name, wanted), images(5, seed=2)
    with torch.no_grad():
        assert torch.equal(quantized.rebuilt(x), quantized.result.reference(x))


def test_one_integer_off_by_one_is_another_network():
    quantized, x = case("residual"), images(5, seed=2)
    tensors = {name: tensor.clone() for name, tensor in quantized.result.tensors.items()}
    integer = tensors["stem.weight.integer"].flatten()
    integer[0] += 1 if integer[0] < 127 else -1
    other = insert(quantized.network, quantized.result.quantization, tensors, SHAPE)
    with torch.no_grad():
        assert not torch.equal(other(x), quantized.rebuilt(x))


@every
def test_no_float_copy_of_what_is_held_as_integers_is_left(name, wanted):
    quantized = case(name, wanted)
    held = quantized.rebuilt.state_dict()
    replaced = {edge.tensor for edge in quantized.edges if edge.tensor}
    assert replaced
    for tensor in replaced:
        assert tensor not in held
        assert not held[f"{tensor}.integer"].is_floating_point()


@every
def test_every_integer_is_in_the_range_its_edge_says(name, wanted):
    quantized = case(name, wanted)
    for edge in quantized.edges:
        if edge.tensor and edge.dtype != "int32":
            integers = quantized.result.tensors[f"{edge.tensor}.integer"]
            assert edge.low <= integers.min() and integers.max() <= edge.high


def test_a_layer_called_twice_has_one_weight_and_a_bias_for_each_scale():
    quantized = case("shared")
    held = quantized.rebuilt.state_dict()
    assert sum(name.startswith("conv.weight") and name.endswith("integer") for name in held) == 1
    first, second = [tensor for name, tensor in held.items() if name.startswith("conv.bias") and "integer" in name]
    assert not torch.equal(first, second)


def test_zero_padding_pads_the_integers_by_their_zero_point_for_onnxruntime():
    (bare,) = [call for call in calls(case("residual").rebuilt) if KINDS.get(call.target) == "pad"]
    assert bare.args[0].target is A.slice.Tensor or bare.args[0].target is Q.quantize_per_tensor.default
    (paired,) = [call for call in calls(case("residual", "openvino").rebuilt) if KINDS.get(call.target) == "pad"]
    assert paired.args[0].target is Q.dequantize_per_tensor.default


class Padded(nn.Module):
    """Padding of signed values, whose zero point is not zero."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 1), nn.Linear(4 * 18 * 18, 5)

    def forward(self, x):
        return self.linear(nn.functional.pad(self.conv(x), (1, 1, 1, 1)).flatten(1))


def test_padding_the_integers_is_exact():
    made, x = Padded().eval(), images(3, seed=4)
    result = quantize(made, SHAPE, target("onnxruntime-cpu"), "min-max", images().split(8))
    assert result.tensors["quantization.zero_point"].min() > 0
    with torch.no_grad():
        assert torch.equal(insert(made, result.quantization, result.tensors, SHAPE)(x), result.reference(x))


def test_a_quantized_network_answers_one_image_as_it_does_in_a_batch():
    rebuilt, x = case("residual").rebuilt, images(4, seed=3)
    with torch.no_grad():
        alone, together = rebuilt(x[:1]), rebuilt(x)[:1]
    assert alone.shape == (1, 5)
    assert torch.allclose(alone, together, rtol=2.0**-18)


def test_the_network_given_is_left_as_it_was():
    made = network("residual")
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    result = quantize(made, SHAPE, target("onnxruntime-cpu"), "min-max", images().split(8))
    insert(made, result.quantization, result.tensors, SHAPE)
    assert made.state_dict().keys() == before.keys()
    assert all(torch.equal(made.state_dict()[name], before[name]) for name in before)


@cache
def small():
    """A network of two layers, quick to trace, and what quantizing it gave."""
    made = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 5)).eval()
    return made, quantize(made, SHAPE, target("onnxruntime-cpu"), "min-max", [images()])


def rebuild(edges=None, operators=None, **tensors):
    """Insert the data of the small network with something in it changed; a tensor that is None is taken out."""
    made, result = small()
    quantization = dataclasses.replace(
        result.quantization,
        edges=result.quantization.edges if edges is None else edges,
        operators=operators or result.quantization.operators,
    )
    held = {name: tensor for name, tensor in (result.tensors | tensors).items() if tensor is not None}
    return insert(made, quantization, held, SHAPE)


def edge(kind):
    """The small network's first edge of a kind."""
    kinds = {
        "activation": lambda edge: edge.tensor is None,
        "weight": lambda edge: edge.dtype == "int8",
        "bias": lambda edge: edge.dtype == "int32",
    }
    return next(filter(kinds[kind], small()[1].quantization.edges))


DAMAGED_EDGES = {
    "a call that is not there": ("activation", {"consumer": 999}, r"the network has \d+ calls"),
    "a call before the first": ("activation", {"consumer": -1}, r"the network has \d+ calls"),
    "an argument that is not there": ("activation", {"argument": 99}, r"the call has \d+ arguments"),
    "an argument that is a number": ("activation", {"argument": 3}, "there is no tensor there"),
    "a range upside down": ("activation", {"low": 255, "high": 0}, "its range is not one of its integers"),
    "a range beyond the type": ("activation", {"high": 256}, "its range is not one of its integers"),
    "a scale that is not there": ("activation", {"quantizer": 99}, "the checkpoint has .* activation scales"),
    "no scale at all": ("activation", {"quantizer": None}, "the checkpoint has .* activation scales"),
    "a zero point out of range": ("activation", {"low": 200}, "the zero point .* is out of its range"),
    "another tensor's name": ("weight", {"tensor": "3.weight"}, "the network reads 0.weight there"),
    "integers out of range": ("weight", {"low": -1, "high": 1}, "its integers are out of their range"),
    "integers of another type": ("weight", {"dtype": "uint8", "low": 0}, "its integers are not uint8"),
    "no axis": ("weight", {"axis": None}, "its axis is not one of the tensor's"),
    "an axis that is not there": ("weight", {"axis": 4}, "its axis is not one of the tensor's"),
    "an axis of another length": ("weight", {"axis": 1}, "its scales are not one above zero for each channel"),
    "a bias on another axis": ("bias", {"axis": 1}, "it is not the bias of a layer"),
    "a bias with an unknown name": ("bias", {"tensor": "nothing"}, "it is not the bias of a layer"),
    "a bias where the weight is": ("bias", {"argument": 1}, "it is not the bias of a layer"),
}


@pytest.mark.parametrize("damage", DAMAGED_EDGES)
def test_an_edge_that_does_not_fit_the_network_is_refused(damage):
    kind, changes, message = DAMAGED_EDGES[damage]
    with pytest.raises(CompressError, match=message):
        rebuild(edges=(dataclasses.replace(edge(kind), **changes),))


def test_an_edge_that_is_there_twice_is_refused():
    with pytest.raises(CompressError, match="it is there twice"):
        rebuild(edges=(edge("weight"), edge("weight")))


def test_a_bias_added_to_floats_is_refused():
    with pytest.raises(CompressError, match="it is added to what are not integer products"):
        rebuild(edges=(edge("bias"),))


def test_an_edge_is_refused_on_a_call_it_was_not_made_for():
    moved = dataclasses.replace(edge("weight"), consumer=edge("weight").consumer + 1, argument=0)
    with pytest.raises(CompressError, match=r"at argument 0 of call \d+ \(0.weight\): the network reads .* there"):
        rebuild(edges=(moved,))


NAN, HALF = torch.tensor(float("nan")), torch.float16


DAMAGED_TENSORS = {
    "no integers": ("0.weight.integer", lambda old: None, "its integers or scales are missing"),
    "no scales": ("0.weight.scale", lambda old: None, "its integers or scales are missing"),
    "integers of another shape": ("0.weight.integer", lambda old: old[:2], r"its integers are not int8 of \(4, 3"),
    "integers that are floats": ("0.weight.integer", lambda old: old.float(), "its integers are not int8"),
    "scales of zero": ("0.weight.scale", lambda old: old * 0, "not one above zero for each channel"),
    "scales below zero": ("0.weight.scale", lambda old: -old, "not one above zero for each channel"),
    "scales that are infinite": ("0.weight.scale", lambda old: old / 0, "not one above zero for each channel"),
    "scales too few": ("0.weight.scale", lambda old: old[:3], "not one above zero for each channel"),
    "scales so small that a bias overflows": ("0.weight.scale", lambda old: old * 1e-20, "leaves int32"),
    "no activation scales": ("quantization.scale", lambda old: None, "the scales in this checkpoint are damaged"),
    "no zero points": ("quantization.zero_point", lambda old: None, "the scales in this checkpoint are damaged"),
    "activation scales of NaN": (
        "quantization.scale",
        lambda old: old * NAN,
        "the scales in this checkpoint are damaged",
    ),
    "activation scales in half precision": ("quantization.scale", lambda old: old.to(HALF), "are damaged"),
    "too few zero points": ("quantization.zero_point", lambda old: old[1:], "are damaged"),
    "zero points of another type": ("quantization.zero_point", lambda old: old.float(), "are damaged"),
}


@pytest.mark.parametrize("damage", DAMAGED_TENSORS)
def test_tensors_that_do_not_fit_the_edges_are_refused(damage):
    name, change, message = DAMAGED_TENSORS[damage]
    with pytest.raises(CompressError, match=message):
        rebuild(**{name: change(small()[1].tensors[name].clone())})


def test_what_is_not_damaged_is_not_refused():
    _, result = small()
    with torch.no_grad():
        assert torch.equal(rebuild()(images()), result.reference(images()))


def test_a_network_with_another_sequence_of_calls_is_refused():
    with pytest.raises(CompressError, match="another version of torch, or of the network's code"):
        rebuild(operators="sha256:0")


@pytest.mark.parametrize(("name", "wanted"), CASES)
def test_what_is_had_back_from_the_calls_is_what_is_loaded_and_nothing_else(name, wanted):
    found = case(name, wanted)
    integers = {edge.tensor for edge in found.edges if edge.tensor and edge.dtype != "int32"}
    held = {key: tensor for key, tensor in found.network.state_dict().items() if key not in integers}
    with torch.no_grad():
        exact = found.rebuilt(images())
        assert torch.equal(found.result.rebuilt(held | found.result.tensors)(images()), exact)
        first = next(key for key in held if key.endswith(".bias"))
        other = found.result.rebuilt(held | found.result.tensors | {first: held[first] + 1})
        assert not torch.equal(other(images()), exact)
