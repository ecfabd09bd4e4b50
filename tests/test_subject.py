"""What is known of a file before it is timed."""

import dataclasses

import pytest
import small_onnx

from compress import checkpoint, networks, storage
from compress.architecture import Architecture
from compress.environment import environment
from compress.errors import CompressError
from compress.subject import entry

DIGITS = Architecture("compress", "digits_cnn", {"num_classes": 10}, (1, 32, 32))


@pytest.fixture
def digits(tmp_path):
    found = checkpoint.Checkpoint(DIGITS, networks.create(DIGITS).state_dict())
    checkpoint.save(found, tmp_path / "digits.safetensors")
    return found, tmp_path / "digits.safetensors"


def figures(found):
    return {each.metric: each.median for each in found.measurements}


def test_a_checkpoint_is_known_by_its_fingerprint_and_counted(digits):
    source, path = digits
    found = entry(path, environment(1))
    assert dataclasses.astuple(found.subject) == (
        "digits.safetensors",
        storage.digest_file(path),
        source.fingerprint,
        "digits_cnn",
        "checkpoint",
        "fp32",
    )
    learnt = {name: each for name, each in source.weights.items() if not name.endswith(("_mean", "_var", "_tracked"))}
    assert figures(found) == {
        "size": path.stat().st_size,
        "parameters": sum(each.numel() for each in learnt.values()),
        "sparsity": 0.0,
        # by hand: stem, halving, block, halving, block, classifier
        "macs": 32**2 * 288 * 1 + 16**2 * 32 * 288 + 2 * 16**2 * 32 * 288 + 8**2 * 64 * 288 + 2 * 8**2 * 64 * 576 + 640,
    }


def test_an_artifact_says_what_its_checkpoint_does(digits):
    from compress.export import export

    source, path = digits
    artifact = path.with_name("digits.onnx")
    export(source, artifact)
    exported, original = entry(artifact, environment(1)), entry(path, environment(1))
    assert exported.subject.fingerprint == original.subject.fingerprint
    assert exported.subject.format == "onnx"
    for metric in ("parameters", "macs"):
        assert figures(exported)[metric] == figures(original)[metric]
    assert figures(exported)["size"] == artifact.stat().st_size
    assert exported.notes == ()


def test_an_artifact_without_its_sidecar_says_that_counts_are_missing(tmp_path):
    found = entry(small_onnx.write(tmp_path / "other.onnx"), environment(1))
    assert set(figures(found)) == {"size"}
    assert found.notes == (
        "other.onnx.json is missing, so parameters, MACs and where the file comes from are not known",
    )


def test_a_file_that_is_neither_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(CompressError, match="is not a checkpoint"):
        entry(tmp_path / "text.txt", environment(1))
    with pytest.raises(CompressError, match="cannot read"):
        entry(tmp_path / "missing.onnx", environment(1))


def test_the_sensitivity_measured_of_a_checkpoint_goes_with_it_and_its_files_and_no_others(digits, tmp_path):
    from compress import document
    from compress.export import export
    from compress.sensitivity import FORMAT, KIND, Sensitivity, beside

    source, path = digits
    found = Sensitivity(
        source.fingerprint, "", "channels", "l2", (0.5,), 10, 0, "top1", 90.0, {"conv1": (80.0,)}, ()
    )  # fmt: skip
    document.write(beside(path, "channels"), KIND, FORMAT, found)
    export(source, tmp_path / "digits.onnx")
    other = dataclasses.replace(source, weights={name: each + 1 for name, each in source.weights.items()})
    checkpoint.save(other, tmp_path / "other.safetensors")
    for name, expected in (("digits.safetensors", (found,)), ("digits.onnx", (found,)), ("other.safetensors", ())):
        assert entry(tmp_path / name, environment(1)).sensitivities == expected


def test_layers_are_known_before_anything_is_timed(digits, tmp_path):
    from compress.export import export

    source, path = digits
    export(source, tmp_path / "digits.onnx")
    names = [[layer.name for layer in entry(each, environment(1)).layers] for each in (path, tmp_path / "digits.onnx")]
    assert names[0] == names[1] and len(names[0]) == 8


@pytest.mark.parametrize("name", ["net.engine", "net.xml"])
def test_an_artifact_without_its_sidecar_is_not_taken_for_a_checkpoint(tmp_path, name):
    (tmp_path / name).write_bytes(b"native code")
    with pytest.raises(CompressError, match=f"{name} has no {name}.json beside it"):
        entry(tmp_path / name, environment(1))
