"""Sessions run by OpenVINO, beyond what every session promises."""

import os
import subprocess
import sys

import numpy as np
import pytest
import small_onnx

from compress.environment import environment
from compress.errors import CompressError, UsageError
from compress.runtime import open_session
from compress.runtime.openvino import OpenvinoSession

pytest.importorskip("openvino")


def images(count, *shape):
    return np.random.default_rng(0).standard_normal((count, *shape), dtype=np.float32)


def test_an_onnx_file_is_answered_as_by_onnx_runtime(tmp_path):
    path, shown = small_onnx.write(tmp_path / "a.onnx"), images(4, 3, 8, 8)
    exact = open_session("onnxruntime", path)(shown)
    logits = open_session("openvino", path)(shown)
    tolerance = 1e-4 * np.abs(exact).max()
    assert np.abs(logits - exact).max() < tolerance < np.abs(1.01 * exact - exact).max()


def test_importing_it_sends_nothing_and_leaves_nothing_in_the_home_folder(tmp_path):
    path = small_onnx.write(tmp_path / "a.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from compress.runtime import open_session;"
        "open_session('openvino', Path(sys.argv[1]));"
        "sys.exit(any(name.startswith('openvino_telemetry') and module for name, module in sys.modules.items()))"
    )
    environment = {**os.environ, "HOME": str(home)}
    assert subprocess.run([sys.executable, "-c", code, path], env=environment, check=False).returncode == 0
    assert list(home.rglob("*")) == []


def test_threads_and_precision_are_as_asked():
    # OpenVINO takes no more threads than this process may run on cores.
    threads = min(2, environment(1).cores)
    session = OpenvinoSession(small_onnx.model().SerializeToString(), threads=threads)
    compiled = session._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert compiled.get_property("NUM_STREAMS") == 1
    assert "float32" in str(compiled.get_property("INFERENCE_PRECISION_HINT"))


def test_logits_are_not_overwritten_by_the_next_batch():
    session = OpenvinoSession(small_onnx.model().SerializeToString())
    first = session(images(2, 3, 8, 8))
    kept = first.copy()
    session(2 * images(2, 3, 8, 8))
    assert np.array_equal(first, kept)


def test_a_graph_of_one_batch_size_takes_no_other():
    session = OpenvinoSession(small_onnx.model(batch="4").SerializeToString())
    assert session.batch == 4
    with pytest.raises(CompressError, match="takes 4 images at a time, and got 3"):
        session(images(3, 3, 8, 8))
    with pytest.raises(CompressError, match="takes 4 images at a time, and got 3"):
        session.outputs(["convolved"])(images(3, 3, 8, 8))


def test_another_device_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'cuda' was asked for, and OpenVINO is used on the CPU only"):
        open_session("openvino", small_onnx.write(tmp_path / "a.onnx"), device="cuda")


def test_a_model_that_is_no_classifier_is_refused():
    text = small_onnx.CLASSIFIER.replace("float[BATCH, 3, 8, 8] images", "float[BATCH, 3, H, 8] images")
    with pytest.raises(CompressError, match=r"is no classifier of images: it has images: \[\?,3,\?,8\]"):
        OpenvinoSession(small_onnx.model(text).SerializeToString())


def test_a_model_without_inputs_is_refused(tmp_path):
    (tmp_path / "a.xml").write_text("<net name='a' version='11'/>")
    (tmp_path / "a.bin").write_bytes(b"1234")
    with pytest.raises(CompressError, match="is no classifier of images: it has no inputs"):
        open_session("openvino", tmp_path / "a.xml")


def test_what_it_cannot_read_is_refused_with_its_reason(tmp_path):
    (tmp_path / "a.xml").write_text("<net name='a' version='11'")
    (tmp_path / "a.bin").write_bytes(b"1234")
    with pytest.raises(
        CompressError, match=r"OpenVINO [\d.]+ refuses the OpenVINO file .*a\.xml: .*use another runtime"
    ):
        open_session("openvino", tmp_path / "a.xml")
    (tmp_path / "a.bin").unlink()
    with pytest.raises(CompressError, match=r"cannot read the weights of the OpenVINO file .*a\.bin"):
        open_session("openvino", tmp_path / "a.xml")


def test_what_it_cannot_compile_is_refused_with_its_reason():
    text = small_onnx.CLASSIFIER.replace("flat = Flatten (pooled)", "flat = Reshape (pooled, wrong)").replace(
        "float[5] bias>", "float[5] bias, int64[2] wrong = {2, 3}>"
    )
    with pytest.raises(CompressError, match=r"OpenVINO [\d.]+ refuses the graph: "):
        OpenvinoSession(small_onnx.model(text).SerializeToString())
