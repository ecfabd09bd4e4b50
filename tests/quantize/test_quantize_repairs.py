"""Rounding that is learned and biases that are corrected: closer to the float network, with its zeros where they were."""

import pytest
import torch
from quantizable import SHAPE, case, images, network
from repairable import chain, distance, quantized, smooth

from compress.progress import silent
from compress.quantize.adaround import moments, round_for
from compress.quantize.draft import Draft, Setting, corrected, rounded
from compress.quantize.graph import insert
from compress.quantize.lockstep import per_channel, visit
from compress.quantize.packing import unpack
from compress.quantize.sequence import arguments, attribute
from compress.quantize.target import scheme, target

FOUR = scheme(target("torch"), weight_bits=4).weights
LEARN = {"iterations": 200, "progress": silent}


def whole(draft, name):
    """The integers of a weight in a draft."""
    held = draft.result.tensors[f"{name}.integer"]
    return unpack(held, draft.network.state_dict()[name].shape) if held.dtype == torch.uint8 else held


def computed(layer, traced, weight):
    """E |W x - W~ x~|^2 of a layer, by computing it with W~ = `weight`."""
    bias = attribute(traced, arguments(layer.origin)[2])
    given = layer.origin.target(layer.source, weight, torch.zeros(len(weight)), *layer.origin.args[3:])
    off = per_channel(layer.call, given) - per_channel(layer.call, layer.exact) + bias[:, None]
    return float((off**2).mean(1).sum())


def by_moments(squares, products, weight):
    """The same but for a constant."""
    shaped = weight.reshape(products.shape)
    return float((shaped @ squares * shaped).sum() - 2 * (shaped * products).sum())


@pytest.mark.parametrize("name", ["residual", "mobile", "words"])
def test_moments_are_those_of_float_outputs_and_quantized_inputs(name):
    """What is lost by scaling a layer's weights is the same by the moments as by computing the layer."""
    made = case(name)
    traced = made.result.traced
    with torch.no_grad():
        for layer in visit(made.result.graph(), traced, images()):
            weight, found = attribute(traced, arguments(layer.origin)[1]), moments(layer, traced)
            lost = computed(layer, traced, 0.7 * weight) - computed(layer, traced, weight)
            assert by_moments(*found, 0.7 * weight) - by_moments(*found, weight) == pytest.approx(lost, rel=1e-3)


def test_learned_rounding_is_never_more_than_one_step_away_and_keeps_zeros():
    given = chain(groups=1)
    with torch.no_grad():
        given[2].weight[:, ::2] = 0
    before = quantized(given, weight_bits=4)
    after = rounded(before, **LEARN)
    for name in ("0.weight", "2.weight", "4.weight", "8.weight"):
        scale = before.result.tensors[f"{name}.scale"].reshape(-1, *[1] * (given.state_dict()[name].dim() - 1))
        units = given.state_dict()[name] / scale
        assert ((whole(after, name) - units).abs() < 1 + 1e-4).all()
        assert (whole(after, name)[given.state_dict()[name] == 0] == 0).all()
    assert not whole(after, "2.weight").equal(whole(before, "2.weight"))


@pytest.mark.parametrize(("bits", "share"), [(4, 0.7), (8, 1.0)])
def test_learned_rounding_lowers_what_a_layer_loses(bits, share):
    """At 8 bits most of it comes from the activations, which weights cannot repair."""
    before = quantized(chain(groups=1), weight_bits=bits)
    traced, integers = before.result.traced, before.setting.target.weights
    with torch.no_grad():
        for layer in visit(before.quantized, traced, smooth()):
            if layer.weight == "8.weight":  # five outputs of eight inputs: hardly a choice
                continue
            weight, (squares, products) = attribute(traced, arguments(layer.origin)[1]), moments(layer, traced)
            scale = layer.scale.reshape(-1, 1, 1, 1)
            units = (weight / scale).reshape(products.shape)
            learned = round_for(units, layer.scale.reshape(1, -1, 1), squares, products, integers, 200)
            lost = [computed(layer, traced, found.reshape(weight.shape) * scale) for found in (learned, units.round())]
            assert lost[0] < share * lost[1], layer.weight


@pytest.mark.parametrize("name", ["torch", "onnxruntime-cpu"])
def test_progress_ends_at_the_last_layer_whether_biases_are_integers_or_not(name):
    told = []
    before = quantized(chain(), name=name)
    rounded(before, iterations=1, progress=lambda task, done, total, detail="": told.append((done, total)))
    assert told == [(done, 4) for done in range(1, 5)]


def test_learned_rounding_is_the_same_each_time():
    before = quantized(chain(), weight_bits=4)
    one, other = rounded(before, **LEARN), rounded(before, **LEARN)
    assert all(tensor.equal(other.result.tensors[name]) for name, tensor in one.result.tensors.items())


def test_independent_inputs_leave_nothing_to_learn_and_correlated_ones_do():
    """With H = 1 the nearest integer is best; with all inputs alike only the sum of the weights counts."""
    units = torch.linspace(0.3, 0.45, 8).reshape(1, 1, 8)
    scale = torch.ones(1, 1, 1)
    alone, alike = torch.eye(8).unsqueeze(0), torch.ones(1, 8, 8)
    assert not round_for(units, scale, alone, units @ alone, FOUR, 300).any()
    learned = round_for(units, scale, alike, units @ alike, FOUR, 300)
    assert abs(learned.sum() - units.sum()) < 0.5 * abs(units.round().sum() - units.sum())


def shifts(draft, traced):
    """How far the mean of a channel's outputs is from that of a float network, in the worst channel of each layer."""
    with torch.no_grad():
        return [
            float(
                (per_channel(layer.call, layer.exact).mean(1) - per_channel(layer.call, layer.compute()).mean(1))
                .abs()
                .max()
            )
            for layer in visit(draft.result.graph(), traced, smooth())
        ]


def test_corrected_biases_leave_no_shift_in_any_layer():
    before = quantized(chain(), weight_bits=4)
    after = corrected(before)
    assert max(shifts(before, before.result.traced)) > 1e-2
    assert max(shifts(after, before.result.traced)) < 1e-5
    assert distance(after, before.network) < distance(before, before.network)


def test_corrected_integer_biases_stay_inside_int32_and_can_be_had_back():
    made = case("mobile").result
    draft = Draft(
        Setting(SHAPE, target("onnxruntime-cpu"), "min-max", 99.99, lambda: images(64).split(16)),
        network("mobile"),
        made,
        {},
    )
    after = corrected(draft)
    rebuilt = insert(after.network, after.result.quantization, after.result.tensors, SHAPE)
    with torch.no_grad():
        assert rebuilt(images()).equal(after.quantized(images()))
    assert not after.quantized(images()).equal(draft.quantized(images()))
