"""Sessions run by ONNX Runtime."""

import weakref

import numpy as np
import onnx
import pytest
import small_onnx
from onnx.reference import ReferenceEvaluator

from compress.errors import CompressError, ResourceError
from compress.runtime import onnxruntime, open_session
from compress.runtime.onnxruntime import OnnxSession


def images(count=2):
    return np.random.default_rng(1).standard_normal((count, 3, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_logits_are_those_of_onnxs_own_reference(optimise, threads):
    model = small_onnx.model()
    expected = ReferenceEvaluator(model).run(None, {"images": images()})[0]
    logits = OnnxSession(model.SerializeToString(), threads=threads, optimise=optimise)(images())
    tolerance = 1e-5 * np.abs(expected).max()
    assert np.abs(logits - expected).max() <= tolerance
    assert np.abs(1.01 * logits - expected).max() > tolerance


def test_the_options_asked_for_are_the_ones_in_force():
    for optimise, level in ((True, "ORT_ENABLE_ALL"), (False, "ORT_DISABLE_ALL")):
        session = OnnxSession(small_onnx.model().SerializeToString(), threads=2, optimise=optimise)
        options = session._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
        assert options.graph_optimization_level.name == level
        assert options.execution_mode.name == "ORT_SEQUENTIAL"
        assert session._session.get_providers() == ["CPUExecutionProvider"]


def test_the_inside_is_given_also_where_the_runtime_would_have_fused_it():
    session = OnnxSession(small_onnx.model().SerializeToString())
    found = session.outputs(["convolved", "positive", "logits"])(images())
    assert np.abs(np.maximum(found["convolved"], 0) - found["positive"]).max() < 1e-5
    assert found["convolved"].min() < -0.1
    assert np.abs(found["logits"] - session(images())).max() < 1e-5


def test_a_fixed_batch_is_the_only_one_answered(tmp_path):
    session = open_session("onnxruntime", small_onnx.write(tmp_path / "a.onnx", batch="4"))
    assert session(images(4)).shape == (4, 5)
    with pytest.raises(CompressError, match="takes 4 images at a time, and got 2"):
        session(images(2))


@pytest.mark.parametrize(
    "text",
    [
        '<ir_version: 10, opset_import: ["": 20]> a (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }',
        '<ir_version: 10, opset_import: ["": 20]> a (float[N, 3, H, 8] x) => (float[N, 3, H, 8] y) { y = Relu (x) }',
        '<ir_version: 10, opset_import: ["": 20]> a (uint8[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { y = Cast <to = 1> (x) }',
        '<ir_version: 10, opset_import: ["": 20]> a (float[N, 3, 8, 8] x) => (int64[4] y) { y = Shape (x) }',
        '<ir_version: 10, opset_import: ["": 20]> a (float[N, 3, 8, 8] x, float[N, 3, 8, 8] z) => (float[N, 3, 8, 8] y) { y = Add (x, z) }',
    ],
)
def test_a_graph_that_is_no_classifier_of_images_is_refused(text, tmp_path):
    with pytest.raises(CompressError, match=r"a.onnx is no classifier of images: it has x: tensor"):
        open_session("onnxruntime", small_onnx.write(tmp_path / "a.onnx", text))


def test_a_graph_the_runtime_refuses_is_an_error_in_its_words():
    text = '<ir_version: 10, opset_import: ["": 20, "martian": 1]> a (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { y = martian.Fold (x) }'
    with pytest.raises(CompressError, match=r"ONNX Runtime \S+ refuses the graph: .*Fold"):
        OnnxSession(onnx.parser.parse_model(text).SerializeToString())


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_fell_back_is_an_error(monkeypatch):
    """No build falls back where the provider is not listed, so a listed one without its device is put in."""
    listed = onnxruntime.onnxruntime.get_available_providers()
    missing = next(each for each in onnxruntime.onnxruntime.get_all_providers() if each not in listed)
    monkeypatch.setitem(onnxruntime.PROVIDERS, "cuda", missing)
    with pytest.raises(ResourceError, match=f"this build of ONNX Runtime has no {missing}"):
        OnnxSession(small_onnx.model().SerializeToString(), device="cuda")
    monkeypatch.setattr(onnxruntime.onnxruntime, "get_available_providers", lambda: [missing])
    with pytest.raises(ResourceError, match="cuda was asked for, and ONNX Runtime fell back to CPUExecutionProvider"):
        OnnxSession(small_onnx.model().SerializeToString(), device="cuda")


def test_a_closed_session_has_let_go_of_its_graph():
    session = OnnxSession(small_onnx.model().SerializeToString())
    graph = weakref.ref(session._session)
    assert graph() is not None
    session.close()
    assert graph() is None
