"""A network as one file that no one has to trust."""

import json
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from compress import checkpoint as files
from compress.architecture import Architecture
from compress.checkpoint import Checkpoint, Record
from compress.data.spec import DatasetSpec, Preprocessing
from compress.errors import CompressError, Refusal

SPEC = DatasetSpec("digits", ("0", "1"), (1, 8, 8), Preprocessing("grey", (0.5,), (0.5,)), "sha256:0")


def small(weights=None, **changes):
    architecture = Architecture("compress", "digits_cnn", {"num_classes": 2}, (1, 8, 8), **changes)
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)} if weights is None else weights
    record = Record(
        "prune", {"macs": 0.5}, 3, None, (Refusal("fc", "the classifier"),), ("note",), {"loss": (1.0, 0.5)}
    )
    return Checkpoint(architecture, weights, SPEC, "train", (record,))


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool]


@given(
    shapes=st.dictionaries(
        st.text("abc.", min_size=1, max_size=8), st.lists(st.integers(0, 4), max_size=4), max_size=5
    ),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_saving_then_loading_is_the_identity(tmp_path_factory, shapes, dtype, seed):
    chance = torch.Generator().manual_seed(seed)
    weights = {name: torch.randint(0, 2, shape, generator=chance).to(dtype) for name, shape in shapes.items()}
    path = tmp_path_factory.mktemp("identity") / "a.safetensors"
    before = small(weights)
    files.save(before, path)
    after = files.load(path)
    assert (after.architecture, after.dataset, after.trained_on, after.history) == (
        before.architecture,
        before.dataset,
        before.trained_on,
        before.history,
    )
    assert after.weights.keys() == weights.keys()
    assert all(torch.equal(after.weights[name], weights[name]) for name in weights)
    assert after.fingerprint == before.fingerprint


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path):
    files.save(small(), tmp_path / "a")
    files.save(small(), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_fingerprint_follows_weights_and_architecture_and_not_history():
    base = small()
    changed = {**base.weights, "a.bias": torch.tensor([0.0, 1e-7])}
    assert small(changed).fingerprint != base.fingerprint
    assert small(masked=("a",)).fingerprint != base.fingerprint
    assert Checkpoint(base.architecture, base.weights).fingerprint == base.fingerprint


def test_the_header_is_read_without_torch(tmp_path):
    files.save(small(), tmp_path / "a.safetensors")
    code = (
        "import sys, pathlib; from compress import checkpoint;"
        "h = checkpoint.header(pathlib.Path(sys.argv[1])); print(h.tensors['a.weight'], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.safetensors"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "('F32', (2, 3)) False\n"


def test_a_checkpoint_cut_short_anywhere_is_refused(tmp_path):
    files.save(small(), tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for length in (0, 1, 8, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / "b.safetensors").write_bytes(whole[:length])
        with pytest.raises(CompressError, match=r"damaged|not a checkpoint"):
            files.load(tmp_path / "b.safetensors")


def test_plain_weights_are_refused_with_the_command_that_imports_them(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(CompressError, match=r"holds plain weights.*compress import plain.safetensors"):
        files.load(tmp_path / "plain.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pth", "looks like weights saved by torch"),
        ("a.onnx", "looks like an ONNX file"),
        ("a.txt", "Give a .safetensors file"),
    ],
)
def test_another_file_is_refused_with_what_it_seems_to_be(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"PK\x03\x04 something else entirely")
    with pytest.raises(CompressError, match=message):
        files.load(tmp_path / name)


INFINITE = b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}'


def test_a_header_that_is_no_mapping_is_refused(tmp_path):
    for text in (b"[1, 2]", b'{"a": 7}', b'{"a": {"dtype": "F32", "shape": "x", "data_offsets": []}}', b"7", INFINITE):
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
        with pytest.raises(CompressError, match="not a checkpoint"):
            files.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("slot", ["compress", ["compress"], {"compress": 7}, {"compress": None}])
def test_a_metadata_slot_of_another_type_is_refused(tmp_path, slot):
    text = json.dumps({"__metadata__": slot}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(CompressError, match="holds plain weights, not a checkpoint"):
        files.header(tmp_path / "a.safetensors")


def test_a_newer_format_is_refused(tmp_path):
    files.save(small(), tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    old = b'\\n \\"format\\": 1,'
    assert content.count(old) == 1
    (tmp_path / "a.safetensors").write_bytes(content.replace(old, b'\\n \\"format\\": 9,'))
    with pytest.raises(CompressError, match="has format 9, and this version of compress reads up to 2"):
        files.load(tmp_path / "a.safetensors")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    for value in (float("nan"), float("inf")):
        files.save(small({"a.weight": torch.tensor([1.0, value])}), tmp_path / "a.safetensors")
        with pytest.raises(CompressError, match=r"holds NaN or infinity in a.weight"):
            files.load(tmp_path / "a.safetensors")


def test_a_checkpoint_without_data_says_how_to_get_one_with():
    with pytest.raises(CompressError, match="Import it again with --data"):
        _ = Checkpoint(small().architecture, {}).spec


def test_the_document_is_json_in_one_metadata_slot(tmp_path):
    files.save(small(), tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert list(header["__metadata__"]) == ["compress"]
    assert json.loads(header["__metadata__"]["compress"])["history"][0]["refusals"] == [
        {"layer": "fc", "reason": "the classifier"}
    ]


def test_tensors_that_share_memory_are_written_each_for_itself(tmp_path):
    tensor = torch.arange(6.0)
    given = small({"a": tensor, "b": tensor, "c": tensor[2:]})
    files.save(given, tmp_path / "tied.safetensors")
    found = files.load(tmp_path / "tied.safetensors").weights
    assert {name: each.tolist() for name, each in found.items()} == {
        name: each.tolist() for name, each in given.weights.items()
    }
