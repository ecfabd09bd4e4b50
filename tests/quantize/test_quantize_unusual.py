"""Networks that are written in ways which most are not, and what is said of those that cannot be quantized."""

import pytest
import torch
from quantizable import SHAPE, images
from test_quantize_step import folded, learning
from torch import nn
from torch.nn import functional

from compress.errors import CompressError
from compress.pipeline import Resources
from compress.quantize.equalize import equalize
from compress.quantize.graph import insert
from compress.quantize.ptq import quantize
from compress.quantize.step import Quantize, distance
from compress.quantize.target import target


class Unusual(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, between):
        super().__init__()
        torch.manual_seed(0)
        self.between = between
        self.first, self.second, self.linear = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)
        self.gamma = nn.Parameter(torch.rand(8) + 0.5)
        self.register_buffer("gate", torch.randn(8))

    def forward(self, x):
        x = self.between(self, self.first(x).relu())
        return self.linear(functional.adaptive_avg_pool2d(self.second(x), 1).flatten(1))


BETWEEN = {
    "a factor for each channel": lambda self, x: x * self.gamma.view(1, -1, 1, 1),
    "a bias for each channel": lambda self, x: x + self.gamma.view(1, -1, 1, 1),
    "a gate of a buffer": lambda self, x: x * self.gate.sigmoid()[:, None, None],
    "a max pool padded with infinity": lambda self, x: functional.max_pool2d(
        functional.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2
    ),
    "a number computed on the way": lambda self, x: x * x.max().item(),
}


@pytest.mark.parametrize("wanted", ["onnxruntime-cpu", "tensorrt"])
@pytest.mark.parametrize("between", BETWEEN)
def test_what_stands_between_two_layers_keeps_neither_from_integers(between, wanted):
    network = Unusual(BETWEEN[between]).eval()
    result = quantize(network, SHAPE, target(wanted), "min-max", images().split(8))
    rebuilt = insert(network, result.quantization, result.tensors, SHAPE)
    assert distance(images(), network, result.reference, rebuilt) < 0.1
    assert {edge.tensor for edge in result.quantization.edges if edge.dtype == "int8"} >= {
        "first.weight",
        "second.weight",
        "linear.weight",
    }


def test_weights_held_as_buffers_are_equalized():
    network = Unusual(lambda self, x: x).eval()
    kernel = network.first.weight.detach()
    del network.first.weight
    network.first.register_buffer("weight", kernel)
    made, found, _ = equalize(network, SHAPE)
    assert [pair.first for pair in found] == ["first.weight"]
    assert not torch.equal(made.first.weight, kernel)
    with torch.no_grad():
        torch.testing.assert_close(made(images()), network(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-5, 1e-7])
def test_small_activations_lose_no_more_than_others(factor):
    """The same function: what one layer makes is small, and the next multiplies it up again."""
    network = Unusual(lambda self, x: x).eval()
    with torch.no_grad():
        network.first.weight *= factor
        network.first.bias *= factor
        network.second.weight /= factor
    result = quantize(network, SHAPE, target("onnxruntime-cpu"), "min-max", images().split(8))
    rebuilt = insert(network, result.quantization, result.tensors, SHAPE)
    assert distance(images(), network, result.reference, rebuilt) < 0.02


class Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x.flatten(1))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: {"logits": x}, r"into one tensor of logits \(N, classes\)"),
        (lambda x: (x, x), r"into one tensor of logits \(N, classes\)"),
        (lambda x: x / 0, "NaN or infinity"),
        (lambda x: functional.dropout(x, 0.5), "draws random numbers in inference"),
    ],
)
def test_what_is_wrong_with_the_network_itself_is_said_so(answer, words):
    with pytest.raises(CompressError, match=words):
        distance(images(), Answers(answer), nn.Identity(), nn.Identity())


def test_nothing_left_to_quantize_is_refused():
    with pytest.raises(
        CompressError, match=r"no layer of this network would be held as integers \(conv1: it was excluded;"
    ):
        everything = tuple(name.rpartition(".")[0] for name in folded().weights if name.endswith(".weight"))
        Quantize(images=64, exclude=everything)(folded(), Resources(learning()))
