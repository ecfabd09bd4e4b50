"""The commands that zero weights and that measure what can go, in this process."""

import json

import click
import pytest
from command import run

from compress import checkpoint as files
from compress.errors import UsageError


@pytest.mark.parametrize("words", [("train", "--epochs", 1), ("prune", "--macs", 0.5), ("sparsify", "--sparsity", 0.5)])
def test_a_teacher_whose_answers_nothing_would_follow_is_refused(untrained, words):
    with pytest.raises(UsageError, match="nothing would follow its answers"):
        run(*words, untrained, "--teacher", untrained, "-o", untrained.with_name("out.safetensors"))


@pytest.mark.parametrize("words", [("--structure", "2:4"), ("--structure=weights",), ("--sparsity", "0.5")])
def test_prune_names_sparsify_to_whoever_looks_for_zeros(untrained, words):
    with pytest.raises(
        click.UsageError, match=r"single weights and 2:4 are set to zero by sparsify.*compress sparsify"
    ):
        run("prune", untrained, *words, "-o", untrained.with_name("out.safetensors"))


def test_sensitivity_is_stored_and_drawn_beside_the_checkpoint_and_read_by_sparsify(untrained):
    found = run("sensitivity", untrained, "--structure", "weights", "--images", "16")
    path = untrained.with_name("base.sensitivity.weights.json")
    assert found["output"] == str(path)
    assert json.loads(path.read_text())["kind"] == "compress sensitivity"
    assert "<svg" in untrained.with_name("base.sensitivity.weights.svg").read_text()
    text = run("sensitivity", untrained, "--structure", "weights", "--images", "16", json_too=False)
    assert "block3.conv2" in text
    assert "16 validation images" in " ".join(text.split())
    sparse = untrained.with_name("sparse.safetensors")
    words = ["sparsify", untrained, "--sparsity", "0.5", "--allocation", "sensitivity", "--images", "16", "-o", sparse]
    made = run(*words)
    assert "are zero (50.0" in made["record"]["notes"][0]
    with pytest.raises(UsageError, match="images was 16 and is 17"):
        run(*words, "--images", "17")


def test_settings_of_the_training_are_given_by_name(untrained):
    sparse = untrained.with_name("trained.safetensors")
    words = ["sparsify", untrained, "--structure", "2:4", "--epochs", "1", "--training", "rate=0.01"]
    made = run(*words, "--training", "batch=512", "--training", "class-weights=balanced", "-o", sparse)
    training = made["record"]["settings"]["training"]
    assert (training["rate"], training["batch"], training["class_weights"]) == (0.01, 512, ["balanced"])
    assert files.load(sparse).architecture.masked[0] == "conv2"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("rat=0.1", "unknown setting 'rat': did you mean rate"),
        ("rate", "'rate' is no setting. Write KEY=VALUE"),
        ("rate=fast", "--training rate: Input should be a valid number"),
        ("epochs=3", "^give epochs beside training"),
    ],
)
def test_a_wrong_setting_is_named(untrained, tmp_path, setting, words):
    with pytest.raises(UsageError, match=words):
        run("sparsify", untrained, "--sparsity", "0.5", "--epochs", "1", "--training", setting, "-o", tmp_path / "out")
