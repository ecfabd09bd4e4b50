"""What `compress show` says of a file."""

import dataclasses
from pathlib import Path

import pytest
import torch

from compress import checkpoint, storage
from compress.checkpoint import Checkpoint, Record
from compress.errors import CompressError, Refusal
from compress.explain import explain
from compress.export import export
from compress.sparsity import sparsity, weight_of, zeros

DIGITS = Path(__file__).parents[1] / "models" / "digits.safetensors"


@pytest.fixture(scope="module")
def masked() -> Checkpoint:
    """The digits network with half the weights of its classifier zero."""
    found = checkpoint.load(DIGITS)
    layer = next(name.removesuffix(".weight") for name, each in found.weights.items() if each.ndim == 2)
    weight = found.weights[f"{layer}.weight"].clone()
    weight[::2] = 0
    record = Record(
        "prune", {"sparsity": 0.5}, 0, found.fingerprint, (Refusal("stem", "it is the first"),), ("a note",)
    )
    return dataclasses.replace(
        found,
        architecture=dataclasses.replace(found.architecture, masked=(layer,)),
        weights={**found.weights, f"{layer}.weight": weight},
        history=(*found.history, record),
    )


def test_a_checkpoint_is_explained_with_its_masks_history_and_digest(masked: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "masked.safetensors"
    checkpoint.save(masked, path)
    found = explain(path)
    assert found["masked layers"] == [f"{masked.architecture.masked[0]}: 50.0% zeros"]
    assert found["digest"] == storage.digest_file(path)
    assert (found["network"], found["precision"], found["batch norms"]) == ("digits_cnn", "fp32", "in place")
    assert "a note" in found["history"][-1]
    assert "left alone stem: it is the first" in found["history"][-1]


def test_an_artifact_is_explained_with_its_checkpoint_and_its_zeros(masked: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "masked.onnx"
    export(masked, path)
    found = explain(path)
    assert (found["kind"], found["format"], found["from checkpoint"]) == ("artifact", "onnx", masked.fingerprint)
    assert found["digest"] == storage.digest_file(path)
    assert found["zero weights"] == f"{sparsity(masked.weights):.1f} %" != "0.0 %"


def test_an_artifact_without_its_sidecar_cannot_be_explained(tmp_path: Path) -> None:
    (tmp_path / "alone.onnx").write_bytes(b"onnx")
    with pytest.raises(CompressError, match=r"has no alone\.onnx\.json beside it"):
        explain(tmp_path / "alone.onnx")


def test_sparsity_counts_weights_of_layers_alone() -> None:
    weights = {
        "conv.weight": torch.tensor([[0.0, 1.0], [2.0, 0.0]]),
        "fc.weight.integer": torch.zeros(1, 4, dtype=torch.int8),
        "fc.weight.scale": torch.zeros(1, 4),
        "norm.weight": torch.zeros(100),
        "conv.bias": torch.zeros(100),
    }
    assert sparsity(weights) == 100 * 6 / 8
    assert sparsity({name: each.numpy() for name, each in weights.items()}) == sparsity(weights)
    assert sparsity({}) == 0
    assert (weight_of(weights, "fc"), weight_of(weights, "none")) == ("fc.weight.integer", None)
    assert zeros(weights["conv.weight"]) == 0.5
