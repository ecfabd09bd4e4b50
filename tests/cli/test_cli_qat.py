"""`compress quantize --qat`, in this process."""

import pytest
from command import run

from compress import checkpoint as files
from compress.errors import CompressError, UsageError


def test_it_quantizes_with_training_says_what_each_step_did_and_leaves_one_file(untrained):
    path = untrained.with_name("int8.safetensors")
    words = ["quantize", untrained, "--qat", "--epochs", "1", "--images", "32", "--step-sizes", "learned"]
    said = run(*words, "--training", "batch=512", "--training", "rate=1e-4", "-o", path, json_too=False)
    for each in ("calibrated on 32 images", "kept epoch 1 of 1", "7 batch norms folded"):
        assert each in said
    found = files.load(path)
    settings = found.history[-2].settings
    assert (settings["batch"], settings["rate"], settings["distillation"]) == (512, 1e-4, 0.9)
    assert found.architecture.precision == "int8"
    assert sorted(each.name for each in path.parent.iterdir()) == ["base.safetensors", "int8.safetensors"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--qat", "--observer", "mse"], "--observer is about quantizing without training"),
        (["--epochs", "3"], r"--epochs is about quantizing with training \(--qat\). Give --qat"),
        (["--qat", "--training", "epochs=3"], "give epochs beside training"),
        (["--qat", "--norms", "2"], "--norms"),
        (["--qat", "--weight-bits", "4"], r"^ONNX Runtime on a CPU .* use the target torch, which simulates them\.$"),
        (["--qat", "--training", "new-head=true"], "new_head was asked for, and a network prepared"),
        (["--max-drop", "0.5"], r"^--max-drop: .* Write it as 3pp\.$"),
    ],
)
def test_options_that_do_not_go_together_are_named(untrained, tmp_path, words, told):
    with pytest.raises(UsageError, match=told):
        run("quantize", untrained, *words, "-o", tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_folded_is_refused_and_nothing_is_left(untrained, tmp_path):
    run("fold", untrained, "-o", tmp_path / "folded.safetensors")
    with pytest.raises(CompressError, match="folding comes after pruning and training"):
        run("quantize", tmp_path / "folded.safetensors", "--qat", "-o", tmp_path / "int8.safetensors")
    assert [each.name for each in tmp_path.iterdir()] == ["folded.safetensors"]
