"""Loading engines: only our own, and only where there is a GPU."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from awake import ARCHITECTURES, awake

from compress.errors import CompressError, ResourceError, UsageError
from compress.export import export
from compress.export.artifact import sidecar, write_sidecar
from compress.export.settings import Settings
from compress.runtime import open_session
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.tensorrt import EngineSession, errors, logger, package

trt = pytest.importorskip("tensorrt_rtx")
WITHOUT = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
WITH = pytest.mark.skipif(not torch.cuda.is_available(), reason="an engine runs on a GPU, and there is none here")


@pytest.fixture(scope="module")
def checkpoint():
    return awake(ARCHITECTURES["digits_cnn"])


@pytest.fixture(scope="module")
def artifact(checkpoint, tmp_path_factory):
    capability = None if torch.cuda.is_available() else "8.6"
    path = tmp_path_factory.mktemp("out") / "net.engine"
    return export(checkpoint, path, "tensorrt", settings=Settings(compute_capability=capability, batches=(1, 4, 8)))


@pytest.fixture
def copy(artifact, tmp_path):
    """An engine with its sidecar that may be changed."""
    for path in (artifact.path, sidecar(artifact.path)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return dataclasses.replace(artifact, path=tmp_path / artifact.path.name)


def test_an_engine_without_its_sidecar_is_never_loaded(copy):
    sidecar(copy.path).unlink()
    with pytest.raises(CompressError, match=r"has no net\.engine\.json beside it"):
        open_session("tensorrt", copy.path, device="cuda")


def test_an_engine_that_is_not_the_sidecars_is_never_loaded(copy):
    content = bytearray(copy.path.read_bytes())
    content[len(content) // 2] ^= 1
    copy.path.write_bytes(content)
    with pytest.raises(CompressError, match=r"is not the file that net\.engine\.json describes"):
        open_session("tensorrt", copy.path, device="cuda")


def test_a_file_of_another_format_is_no_engine(copy):
    write_sidecar(dataclasses.replace(copy, tools={"compress": "0.1.0"}))
    with pytest.raises(CompressError, match=r"names no version of TensorRT\. Export it with --format tensorrt"):
        open_session("tensorrt", copy.path, device="cuda")


def test_the_cpu_is_refused(artifact):
    with pytest.raises(UsageError, match=r"an engine runs on a GPU\. Give --device cuda"):
        open_session("tensorrt", artifact.path)


@WITHOUT
def test_without_a_gpu_an_engine_is_refused_with_what_to_do(artifact):
    with pytest.raises(ResourceError, match=r"runs on an NVIDIA GPU, and torch finds none here\. Copy the engine"):
        open_session("tensorrt", artifact.path, device="cuda")


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ResourceError, match=r"needs the package 'tensorrt', .*compress-cnn\[tensorrt\]"):
        package("tensorrt")
    assert package().name == "tensorrt_rtx"
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(ResourceError, match=r"compress-cnn\[tensorrt"):
        package()


@WITHOUT
def test_what_tensorrt_says_of_a_failure_is_kept():
    log = logger(trt)
    assert errors(log) == "it gives no reason"
    assert trt.Runtime(log).deserialize_cuda_engine(b"no engine") is None
    assert "Error" in errors(log)
    assert "\n" not in errors(log)


@WITH
def test_an_engine_answers_as_the_onnx_file_does(checkpoint, artifact):
    from compress.export.onnx import export as to_onnx

    shown = np.random.default_rng(0).standard_normal((8, 1, 32, 32), dtype=np.float32)
    exact = OnnxSession(to_onnx(checkpoint), optimise=False)(shown)
    session = open_session("tensorrt", artifact.path, device="cuda")
    tolerance = 1e-4 * np.abs(exact).max()
    assert np.abs(session(shown) - exact).max() < tolerance < np.abs(1.01 * exact - exact).max()
    assert session.device_seconds(shown) > 0
    with pytest.raises(CompressError, match="built for 1 to 8 images at a time, and got 9"):
        session(np.zeros((9, 1, 32, 32), np.float32))


@WITH
def test_bytes_that_are_no_engine_of_this_gpu_are_refused():
    with pytest.raises(CompressError, match=r"does not load in tensorrt.* on a GPU of compute capability"):
        EngineSession(b"no engine", package())
