"""Engines, built here without a GPU by tensorrt_rtx."""

import dataclasses
import sys

import onnx
import pytest
import small_onnx
import torch
from awake import ARCHITECTURES, awake

from compress import storage
from compress.data.load import load
from compress.errors import CheckFailed, CompressError, ResourceError, UsageError
from compress.export import export
from compress.export.artifact import read_sidecar, sidecar, write_sidecar
from compress.export.engine_layers import Layer
from compress.export.half import convert
from compress.export.onnx import export as to_onnx
from compress.export.settings import Settings
from compress.export.tensorrt import build, earlier, require_asked
from compress.fold.step import Fold
from compress.pipeline import Resources
from compress.quantize.step import Quantize

trt = pytest.importorskip("tensorrt_rtx")

AMPERE = Settings(compute_capability="8.6")
SYMMETRIC = small_onnx.QUANTIZED.replace("uint8 middle = {128}", "int8 middle = {0}")


@pytest.fixture(scope="module")
def written(nets, tmp_path_factory):
    return export(nets("digits_cnn")[0], tmp_path_factory.mktemp("out") / "net.engine", "tensorrt", settings=AMPERE)


def named(text=small_onnx.CLASSIFIER, batch="N"):
    model = small_onnx.model(text, batch)
    for node in model.graph.node:
        node.name = node.output[0]
    return model.SerializeToString()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["digits_cnn", "resnet20"])
@pytest.mark.filterwarnings("error")
def test_every_layer_is_built_in_the_type_the_graph_asks_for(nets, name, precision):
    _, content, shown = nets(name)
    graph = content if precision == "fp32" else convert(content, precision, shown).content
    engine = build(graph, AMPERE)
    assert {(layer.asked, layer.built) for layer in engine.layers} == {(precision, precision)}
    assert len(engine.layers) == sum(
        node.op_type in ("Conv", "Gemm") for node in onnx.load_model_from_string(content).graph.node
    )
    assert (engine.package, engine.version, engine.compute_capability) == ("tensorrt_rtx", trt.__version__, "8.6")


def test_what_was_quantized_for_tensorrt_is_built_in_int8(tmp_path):
    data = load("digits").learning
    resources = Resources(data=data)
    folded = Fold()(awake(ARCHITECTURES["digits_cnn"], data.spec), resources)
    quantized = Quantize(target="tensorrt", images=16)(folded, resources)
    artifact = export(quantized, tmp_path / "int8.engine", "tensorrt", settings=AMPERE)
    assert (artifact.precision, artifact.target) == ("int8", "tensorrt")
    assert artifact.settings["layers"] == "8 of 8 in the type asked for"
    types = {layer.built for layer in build(to_onnx(quantized), AMPERE).layers}
    assert "int8" in types


def test_a_symmetric_graph_of_another_tool_is_built_as_it_says():
    engine = build(named(SYMMETRIC), AMPERE)
    assert engine.layers == (Layer("convolved", "int8", "int8"), Layer("logits", "fp32", "fp32"))


def test_zero_points_are_refused_with_the_way_out():
    with pytest.raises(CompressError, match=r"has no zero points, and this one is 128\. Quantize .* --target tensorrt"):
        build(named(small_onnx.QUANTIZED), AMPERE)


def test_uint8_is_refused_though_tensorrt_itself_takes_it_for_int8_and_says_nothing():
    content = named(small_onnx.QUANTIZED.replace("{128}", "{0}"))
    library_log = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(library_log).create_network(0)
    assert trt.OnnxParser(network, library_log).parse(content)
    with pytest.raises(CompressError, match=r"reads uint8 as int8: all above 127 scales is cut off"):
        build(content, AMPERE)


def test_an_int32_bias_is_refused_with_the_way_out():
    text = SYMMETRIC.replace("float[5, 4] matrix>", "float[5, 4] matrix, int32[4] bias, int32 nought = {0}>").replace(
        "convolved = Conv <pads = [1, 1, 1, 1]> (images_d, weight_d)",
        "bias_d = DequantizeLinear (bias, small, nought) convolved = Conv <pads = [1, 1, 1, 1]> (images_d, weight_d, bias_d)",
    )
    with pytest.raises(CompressError, match=r"cannot compute convolved: .* dequantizes no int32"):
        build(named(text), AMPERE)


def test_the_sidecar_says_how_it_was_built_and_the_log_is_kept(written):
    assert read_sidecar(written.path) == written
    assert written.tools["tensorrt_rtx"] == trt.__version__
    assert written.settings == {
        "compute_capability": "8.6",
        "batches": "1/8/64",
        "workspace": str(2**30),
        "layers": "8 of 8 in the type asked for",
    }
    log = written.path.with_name("net.engine.log").read_text()
    assert "Engine generation completed" in log
    assert "[ONNX Layer: conv1/Conv]" in log
    assert sorted(path.name for path in written.path.parent.iterdir()) == [
        "net.engine",
        "net.engine.json",
        "net.engine.log",
    ]


def test_an_engine_takes_the_batches_it_is_built_for():
    log = build(named(), dataclasses.replace(AMPERE, batches=(2, 4, 6))).log
    assert "MinShape: [2,3,8,8], OptShape: [4,3,8,8], MaxShape: [6,3,8,8]" in log
    assert "MinShape: [5,3,8,8], OptShape: [5,3,8,8], MaxShape: [5,3,8,8]" in build(named(batch="5"), AMPERE).log


@pytest.mark.parametrize("batches", [(0, 1, 1), (2, 1, 4), (1, 8, 4)])
def test_batches_in_another_order_are_refused(batches):
    with pytest.raises(
        UsageError, match="Give the fewest at a time, the number to tune for and the most, in this order"
    ):
        Settings(batches=batches)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, which is built for when none is named")
def test_without_a_gpu_the_one_it_is_for_has_to_be_named():
    with pytest.raises(UsageError, match=r"no GPU here to build for, and none was named\. .*8\.6, 8\.9"):
        build(named())


def test_a_gpu_it_cannot_build_for_is_refused():
    with pytest.raises(UsageError, match=r"unknown compute capability '9\.0'.*8\.9"):
        build(named(), Settings(compute_capability="9.0"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, on which tensorrt builds")
def test_tensorrt_itself_is_refused_where_its_gpu_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # they share their API; only this one is on package indexes
    with pytest.raises(
        ResourceError, match="tensorrt builds on the GPU that the engine is for, and torch finds none here"
    ):
        build(named(), Settings(package="tensorrt"))


def test_without_either_package_the_extra_is_named(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ResourceError, match=r"TensorRT needs the package 'tensorrt.*compress-cnn\[tensorrt"):
        build(named(), AMPERE)


def test_an_operator_it_has_no_word_for_is_named():
    model = onnx.load_model_from_string(named())
    model.graph.node[1].domain, model.graph.node[1].op_type = "mine", "Unheard"
    with pytest.raises(CompressError, match=r"tensorrt_rtx [\d.]+ cannot read the ONNX graph: Unheard positive: "):
        build(model.SerializeToString(), AMPERE)


def test_a_graph_of_free_image_size_is_refused():
    text = small_onnx.CLASSIFIER.replace("float[BATCH, 3, 8, 8] images", "float[BATCH, 3, H, 8] images")
    with pytest.raises(CompressError, match=r"of which only N is free, .*\(-1, 3, -1, 8\)"):
        build(named(text), AMPERE)


def test_what_cannot_be_built_says_why():
    with pytest.raises(CompressError, match=r"could not build the engine: .*workspace.* Give it a larger workspace"):
        build(named(), dataclasses.replace(AMPERE, workspace=1))


def test_layers_built_in_another_type_than_asked_for_fail_beyond_the_share_tolerated():
    good, bad = Layer("good", "int8", "int8"), Layer("bad", "int8", "fp32")
    require_asked((good,) * 3 + (bad,), 0.25)
    with pytest.raises(CheckFailed, match=r"1 of 4 layers .* bad \(fp32 instead of int8\)"):
        require_asked((good,) * 3 + (bad,), 0.24)
    with pytest.raises(CheckFailed, match=r"1 of 2 layers .* bad \(None instead of int8\)"):
        require_asked((good, Layer("bad", "int8", None)), 0.0)
    require_asked((Layer("a", "int8", None), Layer("b", "int8", None)), 0.0)  # nothing is listed: skipped, and said


def test_a_timing_cache_is_used_again_only_if_the_sidecar_names_it(written, tmp_path):
    cache = b"times of kernels"
    path = tmp_path / "net.engine"
    path.write_bytes(written.path.read_bytes())
    place = tmp_path / "net.engine.timing-cache"
    place.write_bytes(cache)
    assert earlier(path, place.name) == b""
    settings = {**written.settings, "timing_cache": storage.digest_bytes(cache)}
    write_sidecar(dataclasses.replace(written, path=path, settings=settings))
    assert earlier(path, place.name) == cache
    place.write_bytes(b"what someone else put there")
    assert earlier(path, place.name) == b""
    place.write_bytes(cache)
    path.write_bytes(b"half of an eng")
    assert earlier(path, place.name) == b""
    sidecar(path).unlink()
    assert earlier(path, place.name) == b""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, which lists the layers itself")
def test_the_timing_cache_is_asked_for_as_the_library_gives_it():
    """What tensorrt is asked and tensorrt_rtx is not: they share the calls, which do nothing in the latter."""
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()
    with pytest.deprecated_call():
        assert config.set_timing_cache(config.create_timing_cache(b""), False)
        assert isinstance(bytes(config.get_timing_cache().serialize()), bytes)
