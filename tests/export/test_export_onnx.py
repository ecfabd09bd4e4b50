"""From a checkpoint to an ONNX file."""

import dataclasses
import logging
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from awake import ARCHITECTURES, awake, images

from compress import checkpoint as files
from compress import networks, parity
from compress.architecture import Architecture
from compress.build import build
from compress.data.load import load
from compress.data.normalise import normalise
from compress.errors import CompressError, UsageError
from compress.export import export
from compress.export import onnx as onnx_module
from compress.export.artifact import sidecar
from compress.export.onnx import export as to_bytes
from compress.export.settings import Settings
from compress.fold.step import Fold
from compress.pipeline import Resources
from compress.quantize.step import Quantize
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.session import answers
from compress.runtime.torch import TorchSession

FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        {forward}

def build():
    return Net()
"""


@pytest.fixture(scope="module")
def exported():
    """The ONNX bytes of a network's checkpoint, each made once."""
    made = {}

    def get(name):
        if name not in made:
            checkpoint = awake(ARCHITECTURES[name])
            made[name] = checkpoint, to_bytes(checkpoint)
        return made[name]

    return get


@pytest.fixture
def users(tmp_path):
    """A checkpoint, and its user network, of a file with the given forward."""

    def make(forward):
        path = tmp_path / "net.py"
        path.write_text(FILE.format(forward=forward))
        user = networks.load_user(f"{path}:build")
        return awake(Architecture("user", "build", {}, (3, 8, 8), code=user.digest), user=user), user

    return make


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_exported_network_answers_as_it_did_in_torch(exported, name):
    checkpoint, content = exported(name)
    shape = checkpoint.architecture.input_shape
    hop = parity.compare(
        "export", TorchSession(build(checkpoint), shape), OnnxSession(content), images(shape, 8).numpy()
    )
    assert hop.verdict == "passed", hop


def test_two_exports_are_the_same_bytes_also_in_another_process(exported, tmp_path):
    checkpoint, content = exported("digits_cnn")
    assert to_bytes(checkpoint) == content
    files.save(checkpoint, tmp_path / "base.safetensors")
    code = (
        "import sys; from pathlib import Path; from compress import checkpoint, export\n"
        "export.export(checkpoint.load('base.safetensors'), Path('net.onnx'))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PYTHONHASHSEED": "7"})
    assert (tmp_path / "net.onnx").read_bytes() == content


def test_nodes_and_tensors_are_named_by_the_module_they_come_from(exported):
    graph = onnx.load_model_from_string(exported("resnet18")[1]).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert {"conv1/Conv", "layer2.0.downsample.0/Conv", "layer1.1.relu/Relu_2", "fc/Gemm"} <= set(names)
    assert [output for node in graph.node for output in node.output] == [*names[:-1], "logits"]
    assert [each.name for each in graph.input] == ["images"]
    assert {"layer1.0.conv1.weight", "fc.bias"} <= {each.name for each in graph.initializer}


def test_an_option_a_shortcut_is_two_slices_and_a_pad(exported):
    graph = onnx.load_model_from_string(exported("resnet20")[1]).graph
    expected = {"Conv": 19, "Relu": 19, "Add": 9, "Slice": 4, "Pad": 2, "ReduceMean": 1, "Reshape": 1, "Gemm": 1}
    assert Counter(node.op_type for node in graph.node) == expected


def test_the_file_says_where_it_comes_from_and_nothing_of_the_machine(users):
    checkpoint, user = users("return torch.relu(self.stem(x)).mean((2, 3))")
    content = to_bytes(checkpoint, user)
    model = onnx.load_model_from_string(content)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"compress.source": checkpoint.fingerprint}
    assert not model.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    for words in ("net.py", "site-packages", "pkg.", "torch", sys.prefix, str(Path.home()), str(Path.cwd())):
        assert words.encode() not in content


@pytest.fixture(scope="module")
def integers():
    """A network quantized on real digits, as a checkpoint; its ONNX bytes; and digits to show it."""
    learning = load("digits").learning
    train, validation = (
        normalise(next(split.batches(64))[0], learning.spec.preprocessing)
        for split in (learning.train, learning.validation)
    )
    folded = Fold()(awake(ARCHITECTURES["digits_cnn"], shown=train))
    checkpoint = Quantize(images=64)(folded, Resources(data=learning))
    return checkpoint, to_bytes(checkpoint), validation.numpy()


def test_a_quantized_network_keeps_its_integers(integers):
    graph = onnx.load_model_from_string(integers[1]).graph
    held = {each.name: each.data_type for each in graph.initializer}
    layers = ["conv1", "conv2", "block2.conv1", "block2.conv2", "conv3", "block3.conv1", "block3.conv2", "linear"]
    for layer in layers:
        assert held[f"{layer}.weight.integer"] == onnx.TensorProto.INT8
        assert held[f"{layer}.bias.integer"] == onnx.TensorProto.INT32
    assert not any(name in held for layer in layers for name in (f"{layer}.weight", f"{layer}.bias"))
    names = {node.name for node in graph.node}
    assert {"images/QuantizeLinear", "conv1.weight/DequantizeLinear", "conv1.bias/DequantizeLinear"} <= names


def test_a_quantized_network_answers_as_it_did_in_torch_but_for_tipped_roundings(integers):
    checkpoint, content, digits = integers
    exported = OnnxSession(content, optimise=False)
    hop = parity.compare("export", TorchSession(build(checkpoint), (1, 32, 32)), exported, digits, "integer")
    assert hop.verdict == "passed", hop
    name = "block2.conv2.weight.scale"
    wrong = dataclasses.replace(checkpoint, weights={**checkpoint.weights, name: checkpoint.weights[name] * 1.01})
    hop = parity.compare("export", TorchSession(build(wrong), (1, 32, 32)), exported, digits, "integer")
    assert hop.verdict == "failed"


def test_a_reloaded_quantized_checkpoint_exports_to_the_same_bytes(integers, tmp_path):
    files.save(integers[0], tmp_path / "int8.safetensors")
    assert to_bytes(files.load(tmp_path / "int8.safetensors")) == integers[1]


def test_exporting_says_nothing_and_leaves_logging_as_it_was(exported, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_bytes(exported("digits_cnn")[0])
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_an_operator_without_a_word_in_onnx_is_refused_by_name_and_nothing_is_written(users, tmp_path):
    checkpoint, user = users("return torch.linalg.eigvals(x[:, 0]).real")
    (tmp_path / "net.onnx").write_bytes(b"as it was")
    with pytest.raises(CompressError, match=r"user:build cannot be written as ONNX: .*aten\.linalg_eig"):
        export(checkpoint, tmp_path / "net.onnx", user=user)
    assert (tmp_path / "net.onnx").read_bytes() == b"as it was"
    assert not sidecar(tmp_path / "net.onnx").exists()


@pytest.mark.parametrize(
    "forward",
    ["return self.stem(x)", "return torch.zeros(2, 10)", "y = x.mean((2, 3)); return y, y + 1"],
)
def test_a_network_that_gives_no_logits_for_any_number_of_images_is_refused(users, forward):
    with pytest.raises(CompressError, match="does not turn N images into logits"):
        to_bytes(*users(forward))


def test_an_unknown_format_lists_those_there_are(exported, tmp_path):
    with pytest.raises(UsageError, match="unknown format 'onyx': did you mean onnx"):
        export(exported("digits_cnn")[0], tmp_path / "net", format="onyx")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_for_a_fixed_batch_answers_any_number_of_images_as_the_free_one(exported, tmp_path, precision):
    checkpoint, content = exported("digits_cnn")
    shown = images(checkpoint.architecture.input_shape, 10).numpy()
    settings = {"precision": precision, "batch": 4}
    made = export(checkpoint, tmp_path / "four.onnx", settings=Settings(**settings), images=shown)
    assert made.settings["batch"] == "4"
    fixed = OnnxSession((tmp_path / "four.onnx").read_bytes())
    assert fixed.batch == 4
    with pytest.raises(CompressError, match="takes 4 images at a time, and got 10"):
        fixed(shown)
    free = OnnxSession(content)(shown)
    assert np.abs(answers(fixed, shown) - free).max() <= (1e-5 if precision == "fp32" else 1e-2) * np.abs(free).max()
    with pytest.raises(UsageError, match="a batch of 0 images"):
        Settings(batch=0)


def test_a_network_too_large_for_one_file_is_refused_before_it_is_written(exported, tmp_path, monkeypatch):
    checkpoint, content = exported("digits_cnn")
    monkeypatch.setattr(onnx_module, "MOST_BYTES", len(content) - 1)
    with pytest.raises(CompressError, match=f"ONNX file of {len(content):,} bytes, .* at most {len(content) - 1:,}"):
        export(checkpoint, tmp_path / "large.onnx")
    assert not list(tmp_path.iterdir())
