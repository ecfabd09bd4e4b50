"""Sessions run by torch."""

import weakref

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import CompressError, UsageError
from compress.runtime.torch import TorchSession
from compress.trace import trace

SHAPE = (3, 8, 8)


class Watching(nn.Module):
    """Notes how it is run."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 4)
        self.seen = []

    def forward(self, images):
        self.seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled(), self.training))
        return self.linear(images.flatten(1))


def images(count=2):
    return np.random.default_rng(0).standard_normal((count, *SHAPE), dtype=np.float32)


def test_a_session_answers_as_the_network_does():
    network = Watching().eval()
    assert np.array_equal(TorchSession(network, SHAPE)(images()), network(torch.from_numpy(images())).detach().numpy())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_computes_with_its_own_threads_and_gives_torch_its_back(threads):
    before = torch.get_num_threads()
    network = Watching().eval()
    TorchSession(network, SHAPE, threads=threads)(images())
    assert network.seen == [(threads, True, False)]
    assert torch.get_num_threads() == before


def test_threads_are_given_back_after_a_failure_too():
    class Failing(nn.Module):
        def forward(self, images):
            raise RuntimeError("no")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no"):
        TorchSession(Failing(), SHAPE, threads=before + 1)(images())
    assert torch.get_num_threads() == before


def test_half_precision_logits_are_given_as_float32():
    network = Watching().eval()
    network.linear.to(torch.bfloat16)
    network.register_forward_pre_hook(lambda module, inputs: inputs[0].bfloat16())
    assert TorchSession(network, SHAPE)(images()).dtype == np.float32


def test_the_inside_of_a_network_is_given_by_the_names_of_its_modules():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = TorchSession(network, SHAPE).outputs(["0", "1"])(images())
    assert list(found) == ["0", "1"]
    assert np.array_equal(np.maximum(found["0"], 0), found["1"])
    assert found["0"].min() < 0
    assert not any(module._forward_hooks for module in network.modules())


def test_an_exported_graph_is_answered_and_its_inside_given_by_the_names_of_its_nodes():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    plain, graph = TorchSession(network, SHAPE), TorchSession(trace(network, SHAPE), SHAPE)
    assert np.array_equal(plain(images()), graph(images()))
    found = graph.outputs(["conv2d"])(images())
    assert np.array_equal(found["conv2d"], plain.outputs(["0"])(images())["0"])
    with pytest.raises(UsageError, match="unknown node 'conv3d': did you mean conv2d"):
        graph.outputs(["conv3d"])


def test_an_exported_graph_is_refused_on_another_device():
    graph = trace(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), SHAPE)
    with pytest.raises(CompressError, match="a graph made for the CPU, and cuda was asked for"):
        TorchSession(graph, SHAPE, device="cuda")


def test_a_closed_session_has_let_go_of_its_network():
    session = TorchSession(Watching().eval(), SHAPE)
    network = weakref.ref(session.network)
    assert network() is not None
    session.close()
    assert network() is None
