"""The ways torch runs a network: what each is called, where it is refused, and that it answers the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from awake import ARCHITECTURES, awake, images
from torch import nn

from compress import checkpoint
from compress.build import build
from compress.errors import CompressError, ResourceError, UsageError
from compress.runtime import open_session
from compress.runtime.torch import TorchSession
from compress.runtime.torch_variant import Variant, products, require, variant

SHAPE = (1, 32, 32)
IMAGES = images(SHAPE, 4).numpy()
ULP = {"fp32": 2**-24, "tf32": 2**-11, "fp16": 2**-11, "bf16": 2**-8}
"""Half a unit in the last place of one, in each precision."""
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and there is none here")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return build(awake(ARCHITECTURES["digits_cnn"]))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("", Variant()),
        ("eager+fp32", Variant()),
        ("compile+bf16", Variant("compile", "bf16")),
        ("tf32+channels-last+cuda-graph", Variant("cuda-graph", "tf32", True)),
    ],
)
def test_words_in_any_order_name_a_way(words: str, meant: Variant) -> None:
    assert variant(words) == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("bf61", "unknown way to run torch 'bf61': did you mean bf16"),
        ("fp16+bf16", "asks for fp16 and bf16: give one of"),
        ("compile+cuda-graph", "asks for compile and cuda-graph"),
    ],
)
def test_words_that_name_no_way_are_refused(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        variant(words)


@pytest.mark.parametrize(
    ("words", "said"), [("cuda-graph", "a CUDA graph was asked for on the device cpu"), ("tf32", "TF32 was asked for")]
)
def test_what_only_a_gpu_has_is_refused_on_a_cpu(network: nn.Module, words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TorchSession(network, SHAPE, way=variant(words))
    with pytest.raises(UsageError, match="no clock of its own"):
        TorchSession(network, SHAPE).device_seconds(IMAGES)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ResourceError, match=r"needs a C\+\+ compiler"):
        require(Variant("compile"), "cpu", integers=False)


def test_a_network_that_simulates_integers_runs_eagerly_only() -> None:
    require(Variant(), "cpu", integers=True)
    for words in ("bf16", "compile", "channels-last"):
        with pytest.raises(UsageError, match="in eager FP32 only"):
            require(variant(words), "cpu", integers=True)


@pytest.mark.parametrize("words", ["channels-last", "fp16", "bf16", "bf16+channels-last"])
def test_every_way_on_a_cpu_answers_the_same_up_to_its_rounding(network: nn.Module, words: str) -> None:
    _same(network, words, "cpu")


@GPU
@pytest.mark.parametrize("mode", ["eager", "compile", "cuda-graph"])
@pytest.mark.parametrize("numbers", ["fp32", "tf32", "fp16", "bf16", "fp32+channels-last", "bf16+channels-last"])
def test_every_way_on_a_gpu_answers_the_same_up_to_its_rounding(network: nn.Module, mode: str, numbers: str) -> None:
    _same(network, f"{mode}+{numbers}", "cuda")


def _same(network: nn.Module, words: str, device: str) -> None:
    way = variant(words)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    session = TorchSession(network, SHAPE, device=device, way=way)
    reference = TorchSession(network, SHAPE)(IMAGES)
    answer = session(IMAGES)
    assert answer.dtype == np.float32
    # Nine layers with a rounding of weights and of activations each; errors add up in squares, three times that is rare.
    bound = 3 * np.sqrt(2 * 9) * ULP[way.precision] * np.abs(reference).max() + 1e-5
    assert np.abs(answer - reference).max() <= bound
    assert np.array_equal(session(IMAGES[:2]), session(IMAGES[:2]))
    if device == "cpu":
        assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


def test_sixteen_bits_are_really_used(network: nn.Module) -> None:
    exact, rounded = TorchSession(network, SHAPE)(IMAGES), TorchSession(network, SHAPE, way=variant("bf16"))(IMAGES)
    assert np.abs(exact - rounded).max() > 1e-4 * np.abs(exact).max()


def test_the_way_is_part_of_the_runtimes_name(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    checkpoint.save(awake(ARCHITECTURES["digits_cnn"]), path)
    session = open_session("torch:channels-last+bf16", path)
    assert isinstance(session, TorchSession)
    assert session.way == Variant("eager", "bf16", True)
    assert session.outputs(["conv1"])(IMAGES)["conv1"].dtype == np.float32
    for runtime in ("onnxruntime:bf16", "torch:"):
        with pytest.raises(UsageError, match=f"unknown runtime '{runtime}'"):
            open_session(runtime, path)


@pytest.mark.parametrize("words", ["fp32", "tf32", "bf16"])
def test_tf32_is_on_on_a_gpu_only_while_it_is_asked_for(words: str) -> None:
    def flags() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = flags()
    with products(variant(words), "cuda"):
        assert flags() == (words == "tf32",) * 2
    assert flags() == before
    with products(variant(words), "cpu"):
        assert flags() == before


@GPU
def test_tf32_and_fp32_are_told_apart_whatever_torch_defaults_to(network: nn.Module) -> None:
    exact = TorchSession(network, SHAPE)(IMAGES)
    off, on = (
        np.abs(TorchSession(network, SHAPE, device="cuda", way=variant(w))(IMAGES) - exact).max()
        for w in ("fp32", "tf32")
    )
    assert off < on / 10


def test_an_old_gpu_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(CompressError, match="bf16 was asked for, and Tesla T4 has none"):
        require(Variant(precision="bf16"), "cuda", integers=False)
