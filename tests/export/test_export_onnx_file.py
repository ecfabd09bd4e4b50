"""Reading ONNX files that anyone may have made."""

import contextlib
import os
import zipfile

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compress.errors import CompressError
from compress.export.onnx_file import read

WEIGHTS = np.array([1.0, 2.0, 3.0, 4.0], np.float32)


def model(nodes=None, tensors=None, opset=18, ir_version=10):
    """y = x + w, or other nodes from x to y, on rows of four numbers."""
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])] if nodes is None else nodes
    tensors = {"w": WEIGHTS} if tensors is None else tensors
    initializers = [
        each if isinstance(each, TensorProto) else numpy_helper.from_array(each, name) for name, each in tensors.items()
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def saved(folder, made):
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def beside(location, **entries):
    """The tensor w, kept in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def refused(path, words):
    with pytest.raises(CompressError, match=words) as caught:
        read(path)
    assert caught.value.exit_code == 3


def test_a_sound_file_is_handed_on_byte_for_byte(tmp_path):
    path = saved(tmp_path, model())
    assert read(path) == path.read_bytes()


def test_a_file_of_a_runtimes_own_operators_is_read(tmp_path):
    made = model([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")], {})
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert read(saved(tmp_path, made))


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    whole = model().SerializeToString()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, "not ONNX, or was cut short|computes nothing")


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x80\x04\x95", bytes(64)])
def test_what_is_not_onnx_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, "is not ONNX")


def test_a_zip_named_onnx_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"\x80\x04.")
    refused(path, "is not ONNX")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "none.onnx", "cannot read the ONNX file .*No such file")
    refused(tmp_path, "cannot read the ONNX file .*directory")


def test_a_file_of_a_version_not_known_yet_is_refused(tmp_path):
    refused(saved(tmp_path, model(ir_version=onnx.IR_VERSION + 1)), f"IR version {onnx.IR_VERSION + 1}.*Upgrade onnx")
    newest = onnx.defs.onnx_opset_version()
    refused(saved(tmp_path, model(opset=newest + 1)), f"opset {newest + 1}.*knows up to .* and {newest}")


def test_a_graph_that_computes_nothing_is_refused(tmp_path):
    refused(saved(tmp_path, model([], {})), "computes nothing")


def test_an_operator_onnx_does_not_have_is_refused_by_name(tmp_path):
    refused(
        saved(tmp_path, model([helper.make_node("Frobnicate", ["x"], ["y"])], {})), "No Op registered for Frobnicate"
    )


def test_shapes_that_do_not_fit_are_refused(tmp_path):
    refused(saved(tmp_path, model([helper.make_node("Conv", ["x", "w"], ["y"])])), "not valid ONNX.*Conv")


def test_a_tensor_with_more_bytes_than_its_shape_is_refused(tmp_path):
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.raw_data += b"more"
    refused(saved(tmp_path, model(tensors={"w": tensor})), "not valid ONNX")


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_numbers_are_refused(tmp_path, number, kind):
    cast = [helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "v"], ["y"])]
    refused(saved(tmp_path, model(cast, {"w": np.array([1, 2, number, 4], kind)})), "NaN or infinity in 'w'")


def test_a_constant_node_is_looked_into(tmp_path):
    value = numpy_helper.from_array(np.array([1, np.nan, 1, 1], np.float32), "inner")
    nodes = [helper.make_node("Constant", [], ["w"], value=value), helper.make_node("Add", ["x", "w"], ["y"])]
    refused(saved(tmp_path, model(nodes, {})), "NaN or infinity in 'inner'")


def test_the_lone_infinity_of_an_open_ended_clip_is_accepted(tmp_path):
    nodes = [helper.make_node("Clip", ["x", "low", "high"], ["y"])]
    assert read(saved(tmp_path, model(nodes, {"low": np.float32(0), "high": np.float32(np.inf)})))


def quantized(scale, constant):
    """x rounded to integers and back, with the scale as an initializer or as a Constant node."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    tensors = {"scale": np.float32(scale), "zero": np.uint8(128)}
    if constant:
        value = numpy_helper.from_array(tensors.pop("scale"))
        nodes.insert(0, helper.make_node("Constant", [], ["scale"], value=value))
    return model(nodes, tensors)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("scale", [0.0, -0.1, np.inf])
def test_a_scale_that_is_not_above_zero_is_refused(tmp_path, scale, constant):
    assert read(saved(tmp_path, quantized(0.1, constant)))
    refused(saved(tmp_path, quantized(scale, constant)), "a scale that is not above zero: 'scale' of QuantizeLinear")


@pytest.mark.parametrize("location", ["weights.bin", "inner/weights.bin"])
def test_weights_in_the_files_own_folder_are_taken_in(tmp_path, location):
    (tmp_path / "inner").mkdir()
    (tmp_path / location).write_bytes(b"head" + WEIGHTS.tobytes() + b"tail")
    content = read(saved(tmp_path, model(tensors={"w": beside(location, offset=4, length=16)})))
    taken = onnx.load_model_from_string(content).graph.initializer[0]
    assert np.array_equal(numpy_helper.to_array(taken), WEIGHTS)
    assert not taken.external_data


def test_weights_too_large_for_one_file_are_refused(tmp_path, monkeypatch):
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes())
    path = saved(tmp_path, model(tensors={"w": beside("weights.bin")}))
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 64)
    refused(path, "is above 64 bytes with the weights beside it")


@pytest.fixture
def links(tmp_path):
    """A folder with a file beside it, and ways out of the folder to that file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(WEIGHTS.tobytes())
    (folder / "weights.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    (folder / "hard.bin").hardlink_to(secret)
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "../secret.bin"},
        {"location": "/etc/hostname"},
        {"location": "link.bin"},
        {"location": "up/secret.bin"},
        {"location": "hard.bin"},
        {"location": "pipe"},
        {"location": "up"},
        {"location": "none.bin"},
        {"location": ""},
        {"location": "*/_ORT_MEM_ADDR_/*", "offset": 4096, "length": 16},
        {"location": "weights.bin", "offset": -4},
        {"location": "weights.bin", "offset": 10**18},
        {"location": "weights.bin", "length": 10**18},
        {"location": "weights.bin", "offset": 8, "length": 16},
        {"location": "weights.bin", "offset": "four"},
    ],
    ids=str,
)
def test_data_that_is_not_a_plain_file_in_the_folder_is_refused(links, entries):
    refused(
        saved(links, model(tensors={"w": beside(**entries)})), "keeps the tensor 'w' in another file that is refused"
    )


def test_external_data_of_another_length_than_the_tensor_is_refused(links):
    refused(saved(links, model(tensors={"w": beside("weights.bin", length=8)})), "not valid ONNX")


def test_external_data_hidden_in_a_sparse_tensor_is_found(links):
    made = model()
    indices = numpy_helper.from_array(np.array([0], np.int64), "s_indices")
    hidden = TensorProto(name="s", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="../secret.bin")
    made.graph.sparse_initializer.add(values=hidden, indices=indices, dims=[4])
    refused(saved(links, made), "keeps the tensor 's' in another file that is refused")


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_file_with_bytes_changed_is_read_or_refused_and_nothing_else(tmp_path_factory, changes):
    content = bytearray(quantized(0.1, constant=True).SerializeToString())
    for position, byte in changes:
        content[position % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "changed.onnx"
    path.write_bytes(content)
    with contextlib.suppress(CompressError):
        onnx.checker.check_model(read(path))
