"""Comparing each hop of a network with the one before."""

import copy
import itertools

import numpy as np
import pytest
import torch
from awake import ARCHITECTURES, awake, images
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from compress.build import build
from compress.errors import CheckFailed, CompressError
from compress.measurement import Hop
from compress.parity import compare, difference, require
from compress.runtime.torch import TorchSession

SHAPE = (1, 32, 32)
IMAGES = images(SHAPE, 64).numpy()


class Rounded(nn.Module):
    """Convolutions whose activations lie on a grid, as those of an INT8 network do.

    `noise` is what other arithmetic makes of each product, as a share of it.
    """

    def __init__(self, step=1 / 16, noise=0.0):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        channels = (1, 8, 8, 10)
        self.weights = [
            torch.randn(o, i, 3, 3, generator=draw) / (9 * i) ** 0.5 for i, o in itertools.pairwise(channels)
        ]
        self.step, self.noise = step, noise

    def on_grid(self, values, step):
        return torch.round(values / step) * step if step else values

    def forward(self, x):
        x = self.on_grid(x, self.step)
        for weight in self.weights:
            x = self.on_grid(nn.functional.conv2d(x, weight * (1 + self.noise), stride=2).relu(), self.step)
        return x.mean((2, 3))


class WrongAlone(nn.Module):
    """A network that answers a single image otherwise than the same image among others."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x) * (1.01 if len(x) == 1 else 1.0)


@pytest.fixture(scope="module")
def network():
    return build(awake(ARCHITECTURES["digits_cnn"]))


def session(module):
    return TorchSession(module, SHAPE)


def changed(network, name, factor):
    """A copy of a network with one of its tensors multiplied."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.get_parameter(name).mul_(factor)
    return other


def test_a_network_is_at_parity_with_itself(network):
    hop = compare("reload", session(network), session(copy.deepcopy(network)), IMAGES)
    assert (hop.verdict, hop.reason, hop.tolerance) == ("passed", "", {"normalised_max_error": 1e-4})
    assert hop.figures == pytest.approx(
        {"max_abs_error": 0, "normalised_max_error": 0, "sqnr_db": 200, "cosine": 1, "top1_agreement": 1, "alike": 1}
    )
    assert require(hop) is hop


@pytest.mark.parametrize("name", ["conv1.weight", "block3.conv2.weight", "linear.weight"])
def test_a_one_percent_error_in_one_layer_fails(network, name):
    hop = compare("export", session(network), session(changed(network, name, 1.01)), IMAGES)
    assert hop.verdict == "failed"
    assert hop.reason.startswith("normalised_max_error is 0.0")
    with pytest.raises(CheckFailed, match=r"parity of export failed: normalised_max_error is .*, and at most"):
        require(hop)


def test_both_batch_sizes_are_compared(network):
    assert compare("export", session(network), session(WrongAlone(network)), IMAGES).verdict == "failed"


@pytest.mark.parametrize(
    ("name", "factor", "reason"),
    [
        ("linear.weight", 0.0, "no logit varies"),
        ("linear.weight", 1e-4, "no logit varies"),
        ("linear.bias", 1e4, "every image gets"),
    ],
)
def test_outputs_that_show_nothing_are_void_and_not_passed(network, name, factor, reason):
    dead = changed(network, name, factor)
    hop = compare("fold", session(dead), session(dead), IMAGES)
    assert hop.verdict == "void"
    assert hop.reason.startswith(f"before, {reason}")
    assert compare("fold", session(network), session(dead), IMAGES).reason.startswith(f"after, {reason}")
    with pytest.raises(CheckFailed, match="parity of fold is void: before"):
        require(hop)


def test_logits_that_are_not_numbers_fail(network):
    broken = changed(network, "linear.bias", float("nan"))
    assert compare("fold", session(network), session(broken), IMAGES) == Hop(
        "fold", "failed", "logits are NaN or infinite after", {}, {}
    )
    assert compare("fold", session(broken), session(broken), IMAGES).reason.endswith("before and after")


def test_another_number_of_classes_fails(network):
    wider = nn.Sequential(network, nn.Linear(10, 11))
    assert (
        compare("fold", session(network), session(wider), IMAGES).reason == "logits of shape (68, 10) became (68, 11)"
    )


def test_images_that_decide_nothing_are_refused(network):
    with pytest.raises(CompressError, match="needs 2 images or more, and got 1"):
        compare("fold", session(network), session(network), IMAGES[:1])
    with pytest.raises(CompressError, match="needs 32 images or more, and got 31"):
        compare("export", session(network), session(network), IMAGES[:31], "integer")
    with pytest.raises(CompressError, match="images that hold NaN or infinity"):
        compare("fold", session(network), session(network), np.where(IMAGES > 1, np.nan, IMAGES).astype(np.float32))


def test_a_skipped_hop_is_not_stopped_and_not_passed():
    hop = Hop("engine", "skipped", "no GPU", {}, {})
    assert require(hop).verdict == "skipped"


def test_integers_are_at_parity_with_themselves_computed_otherwise():
    here, there = session(Rounded()), session(Rounded(noise=1e-5))
    hop = compare("export", here, there, IMAGES, "integer")
    assert hop.verdict == "passed", hop
    assert set(hop.tolerance) == {"top1_agreement", "sqnr_db", "alike"}
    assert hop.figures["alike"] < 1
    assert compare("export", here, there, IMAGES, "exact").verdict == "failed"


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_one_percent_error_among_integers_fails(layer):
    wrong = Rounded()
    wrong.weights[layer] = wrong.weights[layer] * 1.01
    hop = compare("export", session(Rounded()), session(wrong), IMAGES, "integer")
    assert hop.verdict == "failed"
    assert "alike is" in hop.reason


def test_quantizing_is_judged_by_the_class_alone():
    exact, coarse = session(Rounded(step=0)), session(Rounded(step=1 / 32))
    assert compare("quantize", exact, coarse, IMAGES, "integer").verdict == "failed"
    hop = compare("quantize", exact, coarse, IMAGES, "changed")
    assert (hop.verdict, hop.tolerance) == ("passed", {"top1_agreement": 0.9})
    wrong = Rounded(step=1 / 32)
    wrong.weights[2] = wrong.weights[2].roll(1, 0)
    assert compare("quantize", exact, session(wrong), IMAGES, "changed").reason.startswith("top1_agreement is 0")


logits = arrays(np.float32, (6, 5), elements=st.floats(-8, 8, width=16)).filter(
    lambda values: np.abs(values).max() > 0.1
)


@given(logits)
def test_one_percent_more_of_everything_is_one_percent_of_error_and_forty_decibels(values):
    figures = difference(values, (values * 1.01).astype(np.float32))
    assert figures["normalised_max_error"] == pytest.approx(0.01, rel=1e-4)
    assert figures["sqnr_db"] == pytest.approx(40, abs=1e-3)
    assert figures["cosine"] == pytest.approx(1)
    assert figures["top1_agreement"] == 1


@given(logits, logits, st.sampled_from([0.25, 4.0, 64.0]))
def test_figures_do_not_depend_on_the_scale_of_the_logits(before, after, scale):
    plain, scaled = difference(before, after), difference(before * scale, after * scale)
    plain["max_abs_error"] *= scale
    assert scaled == pytest.approx(plain)


@given(logits, logits)
def test_figures_lie_in_their_ranges(before, after):
    figures = difference(before, after)
    assert -1.001 <= figures["cosine"] <= 1.001
    assert -200 <= figures["sqnr_db"] <= 200
    assert 0 <= figures["top1_agreement"] <= 1
    assert figures["alike"] == float((np.abs(after - before).max(axis=1) <= 1e-4 * np.abs(before).max()).mean())
