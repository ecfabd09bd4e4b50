"""On failure, the first layer that computes something else is named."""

import copy

import numpy as np
import onnx
import pytest
import torch
from awake import ARCHITECTURES, awake, images
from onnx import numpy_helper
from torch import nn

from compress.build import build
from compress.divergence import first_difference
from compress.errors import CheckFailed
from compress.export.onnx import export
from compress.parity import compare, require
from compress.runtime.null import Clock, NullSession
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.session import Session
from compress.runtime.torch import TorchSession

SHAPE = (3, 32, 32)
IMAGES = images(SHAPE, 32).numpy()
SPOILT = ["conv1", "layer2.0.conv2", "layer2.1.conv1", "layer3.2.conv2"]


@pytest.fixture(scope="module")
def network() -> TorchSession:
    return TorchSession(build(awake(ARCHITECTURES["resnet20"])), SHAPE)


@pytest.fixture(scope="module")
def content() -> bytes:
    return export(awake(ARCHITECTURES["resnet20"]))


def spoilt(content: bytes, layer: str) -> bytes:
    """The file with the largest weight of one layer taken away."""
    model = onnx.load_model_from_string(content)
    node = next(node for node in model.graph.node if node.name == f"{layer}/Conv")
    [weights] = [tensor for tensor in model.graph.initializer if tensor.name == node.input[1]]
    values = numpy_helper.to_array(weights).copy()
    values.flat[np.abs(values).argmax()] = 0
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    return model.SerializeToString()


def opened(runtime: str, content: bytes) -> Session:
    if runtime == "onnxruntime":
        return OnnxSession(content)
    pytest.importorskip("openvino")
    from compress.runtime.openvino import OpenvinoSession

    return OpenvinoSession(content)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("layer", SPOILT)
def test_the_layer_whose_weight_was_spoilt_is_named_in_ledger_and_error(
    network: TorchSession, content: bytes, runtime: str, layer: str
) -> None:
    hop = compare("export", network, opened(runtime, spoilt(content, layer)), IMAGES)
    assert hop.verdict == "failed"
    assert hop.reason.endswith(f"the first layer that differs is {layer}/Conv")
    with pytest.raises(CheckFailed, match=f"the first layer that differs is {layer}/Conv"):
        require(hop)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_in_a_good_file_every_layer_is_known_although_batch_norms_are_folded_in_it(
    network: TorchSession, content: bytes, runtime: str
) -> None:
    assert first_difference(network, opened(runtime, content), IMAGES, 60.0) == ""


@pytest.mark.parametrize("layer", SPOILT)
def test_two_files_are_told_apart_too(content: bytes, layer: str) -> None:
    found = first_difference(OnnxSession(content), OnnxSession(spoilt(content, layer)), IMAGES, 60.0)
    assert found == f"{layer}/Conv"


def test_a_runtime_that_cannot_be_looked_into_names_no_layer(network: TorchSession) -> None:
    assert first_difference(network, NullSession(lambda: 1e-3, Clock(), SHAPE, 10), IMAGES, 60.0) == ""


class Attending(nn.Module):
    """A module that returns a tuple, with a linear layer inside that is never called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 8, 4, 4), nn.MultiheadAttention(8, 2), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.first(x).flatten(2).permute(2, 0, 1)
        return self.last(self.inner(tokens, tokens, tokens)[0].mean(0))


def test_a_module_that_returns_no_tensor_and_one_that_is_never_called_are_not_named() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exact = Attending().eval()
    spoilt = copy.deepcopy(exact)
    with torch.no_grad():
        spoilt.last.weight[0] += 1
    sessions = [TorchSession(each, SHAPE) for each in (exact, spoilt)]
    assert first_difference(sessions[0], sessions[0], IMAGES, 60.0) == ""
    assert first_difference(sessions[0], sessions[1], IMAGES, 60.0) == "last"


def test_two_networks_in_torch_are_told_apart_by_module(network: TorchSession) -> None:
    other = copy.deepcopy(network.network)
    with torch.no_grad():
        other.get_parameter("layer2.1.conv1.weight")[0].mul_(1.01)
    hop = compare("fold", network, TorchSession(other, SHAPE), IMAGES)
    assert hop.reason.endswith("the first layer that differs is layer2.1.conv1")
