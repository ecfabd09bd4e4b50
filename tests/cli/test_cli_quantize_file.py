"""`compress quantize FILE.onnx`, in this process."""

import json

import pytest
from command import run
from compress.cli import main as command_line

from compress import checkpoint as files
from compress.errors import CompressError, UsageError
from compress.export import export


@pytest.fixture(scope="module")
def source(untrained):
    exported = untrained.with_name("base.onnx")
    export(files.load(untrained), exported)
    return exported


def test_the_file_and_its_sidecar_are_written_and_what_they_hold_is_said(source):
    path = source.with_name("int8.onnx")
    words = ("quantize", source, "--target", "tensorrt", "--images", 32, "--exclude", "conv1", "-o", path)
    text = run(*words, json_too=False)
    assert f"quantize: wrote {path} (digits_cnn, int8 for tensorrt, {path.stat().st_size:,} bytes)" in text
    assert "of the multiply-accumulates on integers" in text
    assert "left alone: conv1 (it was excluded)" in text
    made = run(*words)
    assert made["output"] == str(path)
    assert made["artifact"] == json.loads(path.with_name("int8.onnx.json").read_text())["artifact"]
    assert set(made) == {"output", "artifact", "integer_macs", "top1_agreement", "sqnr_db", "findings", "notes"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--observer", "mse"], "--observer is about quantizing a checkpoint"),
        (["--seed", "3"], "--seed is about quantizing a checkpoint"),
        (["--max-drop", "1pp"], "--max-drop is about quantizing a checkpoint"),
        (["--qat", "--epochs", "1"], r"--(qat|epochs) is about quantizing a checkpoint"),
        (["--target", "torch"], "a target other than torch"),
        (["--images", "0"], "--images"),
    ],
)
def test_options_that_only_a_checkpoint_has_are_named(source, tmp_path, words, told):
    with pytest.raises(UsageError, match=told):
        run("quantize", source, *words, "-o", tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_the_input_and_a_file_that_is_no_onnx_are_refused(source, tmp_path):
    with pytest.raises(UsageError, match="never overwritten"):
        run("quantize", source, "-o", source)
    words = ["quantize", str(source), "-o", str(tmp_path / "out.onnx")]
    with pytest.raises(UsageError, match="quantize needs images: give --data NAME"):
        command_line.compress.main(words, standalone_mode=False)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(source.read_bytes()[:1000])
    with pytest.raises(CompressError, match="is not ONNX, or was cut short"):
        run("quantize", broken, "-o", tmp_path / "out.onnx")
