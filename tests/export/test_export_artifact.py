"""What is written beside an exported file, and read back."""

import dataclasses
import json
from pathlib import Path

import pytest
from awake import ARCHITECTURES, awake

from compress import storage
from compress.data.spec import DatasetSpec, Preprocessing
from compress.errors import CompressError
from compress.export import export
from compress.export.artifact import read_sidecar, sidecar, write_sidecar

DIGITS = DatasetSpec(
    "digits", tuple("0123456789"), (1, 32, 32), Preprocessing("grey", (0.5,), (0.25,)), "sha256:" + "0" * 64
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    checkpoint = awake(ARCHITECTURES["digits_cnn"], DIGITS)
    return checkpoint, export(checkpoint, tmp_path_factory.mktemp("out") / "net.onnx")


def test_the_sidecar_says_what_the_file_is(artifact):
    checkpoint, made = artifact
    assert sidecar(made.path).name == "net.onnx.json"
    assert read_sidecar(made.path) == made
    assert made.digest == storage.digest_file(made.path)
    assert made.size_bytes == made.path.stat().st_size
    assert made.source == checkpoint.fingerprint
    assert made.dataset == DIGITS
    assert (made.format, made.precision, made.target, made.network) == ("onnx", "fp32", None, "digits_cnn")
    assert {"compress", "torch", "onnx", "onnxscript", "onnx-ir"} == set(made.tools)


def test_macs_and_parameters_are_those_of_the_layers(artifact):
    weights = artifact[0].weights
    learnt = [tensor for name, tensor in weights.items() if "running" not in name and "tracked" not in name]
    assert artifact[1].parameters == sum(tensor.numel() for tensor in learnt)
    assert artifact[1].macs > artifact[1].parameters  # a convolution uses each weight at many places


def test_the_sidecar_names_no_folder(artifact):
    text = sidecar(artifact[1].path).read_text()
    assert json.loads(text)["artifact"]["path"] == "net.onnx"
    assert str(artifact[1].path.parent) not in text
    assert str(Path.home()) not in text


def test_file_and_sidecar_may_move_together(artifact, tmp_path):
    for path in (artifact[1].path, sidecar(artifact[1].path)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert read_sidecar(tmp_path / "net.onnx") == dataclasses.replace(artifact[1], path=tmp_path / "net.onnx")


def test_a_changed_file_is_not_the_one_described(artifact, tmp_path):
    moved = dataclasses.replace(artifact[1], path=tmp_path / "net.onnx")
    content = bytearray(artifact[1].path.read_bytes())
    content[-1] ^= 1
    moved.path.write_bytes(content)
    write_sidecar(moved)
    with pytest.raises(
        CompressError, match=r"is not the file that net\.onnx\.json describes.*export the checkpoint again"
    ):
        read_sidecar(moved.path)


def test_a_file_without_a_sidecar_and_no_file_are_refused(artifact, tmp_path):
    with pytest.raises(CompressError, match="cannot read the artifact"):
        read_sidecar(tmp_path / "net.onnx")
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(CompressError, match=r"no net\.onnx\.json beside it.*Copy both files"):
        read_sidecar(tmp_path / "net.onnx")
