"""`compress lint`, and what `compress export` says of half precision and engines, in this process."""

import json

import pytest
import small_onnx
from click.testing import CliRunner
from compress.cli import main as command_line

from compress.errors import CompressError, UsageError
from compress.quantize.target import RUN


def run(*words):
    """The exit code of a command and what it prints; errors are raised."""
    done = CliRunner().invoke(command_line.compress, [*map(str, words)], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.return_value or 0, done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lint")
    small_onnx.write(folder / "int8.onnx", small_onnx.QUANTIZED.replace("uint8 middle = {128}", "int8 middle = {3}"))
    small_onnx.write(folder / "fp32.onnx")
    return folder


@pytest.fixture(scope="module")
def base(folder):
    run("import", "--network", "digits_cnn", "--untrained", "--data", "digits", "-o", folder / "base.safetensors")
    return folder / "base.safetensors"


def test_findings_exit_1_and_none_exit_0(folder):
    code, text = run("lint", folder / "int8.onnx", "--target", "onnxruntime-cpu")
    assert code == 1
    assert "activation-type (slow): QuantizeLinear of images_q" in text
    assert "Move the zero point by 128 (--fix)" in text
    for target in RUN:
        assert run("lint", folder / "fp32.onnx", "--target", target) == (0, "nothing found\n")


def test_json_has_every_finding(folder):
    code, text = run("lint", folder / "int8.onnx", "--target", "tensorrt", "--json")
    found = json.loads(text)["findings"]
    assert code == 1
    assert {"activation-type", "not-quantized"} <= {finding["rule"] for finding in found}
    assert set(found[0]) == {"node", "rule", "cost", "why", "repair"}


def test_a_repaired_file_is_written_beside_the_input(folder):
    source, output = folder / "int8.onnx", folder / "better.onnx"
    before = source.read_bytes()
    ignored = ("--ignore", "weight-type", "--ignore", "not-quantized")
    code, text = run("lint", source, "--target", "onnxruntime-cpu", *ignored, "--fix", "-o", output)
    assert code == 0
    assert "repaired: activation-type at 2 nodes (noise " in text
    assert f"wrote {output}" in text
    assert source.read_bytes() == before
    assert run("lint", output, "--target", "onnxruntime-cpu", *ignored)[0] == 0


def test_wrong_words_are_said(folder):
    source = folder / "int8.onnx"
    refused = {
        (source, "--target", "onnxruntime-cpu", "--fix"): "--fix and -o go together",
        (source, "--target", "onnxruntime-cpu", "-o", folder / "x.onnx"): "--fix and -o go together",
        (source, "--target", "onnxruntime-cpu", "--fix", "-o", source): "never overwritten",
        (source, "--target", "openvino", "--ignore", "everything"): "unknown rule 'everything'",
    }
    for words, message in refused.items():
        with pytest.raises(UsageError, match=message):
            run("lint", *words)
    with pytest.raises(CompressError, match=r"cannot read the ONNX file .*none\.onnx"):
        run("lint", folder / "none.onnx", "--target", "openvino")


def test_half_precision_is_calibrated_on_the_data_named(base):
    code, text = run(
        "export", base, "--precision", "fp16", "--data", "digits", "-o", base.with_name("half.onnx"), "--json"
    )
    assert (code, json.loads(text)["precision"]) == (0, "fp16")


def test_what_an_export_is_asked_for_is_checked(base):
    refused = {
        ("--precision", "fp16", "-o", "a.onnx"): "fp16 was asked for without images",
        ("--precision", "int8", "-o", "a.onnx"): "int8 was asked for, and the checkpoint is held in fp32",
        ("--format", "tensorrt", "--batches", 4, 2, 8, "-o", "a.engine"): "Give the fewest at a time",
        ("--format", "openvino", "-o", "a.onnx"): r"OpenVINO's files are NAME\.xml and NAME\.bin",
    }
    pytest.importorskip("openvino")
    for words, message in refused.items():
        with pytest.raises(UsageError, match=message):
            run("export", base, *words[:-1], base.with_name(words[-1]))
        assert not base.with_name(words[-1]).exists()
