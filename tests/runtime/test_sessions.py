"""What every runtime in the table promises: a session that answers images with logits."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import small_onnx

from compress import runtime
from compress.architecture import Architecture
from compress.errors import CompressError, ResourceError, UsageError
from compress.runtime import RUNTIMES, null, open_session

DIGITS = Architecture("compress", "digits_cnn", {"num_classes": 10}, (1, 32, 32))


def write_checkpoint(path: Path) -> Path:
    from compress import checkpoint, networks

    network = networks.create(DIGITS)
    checkpoint.save(checkpoint.Checkpoint(DIGITS, network.state_dict()), path)
    return path


def write_null(path: Path) -> Path:
    null.write(path, null.Cost())
    return path


def write_openvino(path: Path) -> Path:
    pytest.importorskip("openvino")
    from compress.export import openvino
    from compress.export.settings import DEFAULT

    path = path.with_suffix(".xml")
    made = openvino.made(small_onnx.model().SerializeToString(), DEFAULT, path)
    path.write_bytes(made.content)
    path.with_suffix(".bin").write_bytes(made.parts["file.bin"])
    return path


def write_engine(path: Path) -> Path:
    import torch

    pytest.importorskip("tensorrt_rtx")
    if not torch.cuda.is_available():
        pytest.skip("an engine runs on a GPU, and there is none here")
    from compress import checkpoint
    from compress.export import export

    return export(checkpoint.load(write_checkpoint(path)), path.with_suffix(".engine"), "tensorrt").path


WRITERS = {
    "torch": write_checkpoint,
    "onnxruntime": small_onnx.write,
    "openvino": write_openvino,
    "tensorrt": write_engine,
    "null": write_null,
}
DEVICES = {"tensorrt": "cuda"}
CLASSES = {"torch": 10, "onnxruntime": 5, "openvino": 5, "tensorrt": 10, "null": 3}
INSIDE = {"torch": "conv1", "onnxruntime": "convolved", "openvino": "convolved", "tensorrt": "logits", "null": "images"}


@pytest.fixture(scope="module", params=RUNTIMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def session(name, tmp_path_factory):
    path = WRITERS[name](tmp_path_factory.mktemp(name) / "file")
    with closing(open_session(name, path, device=DEVICES.get(name, "cpu"))) as opened:
        yield opened


def images(session, count):
    return np.random.default_rng(0).standard_normal((count, *session.input_shape), dtype=np.float32)


@pytest.mark.parametrize("count", [1, 4])
def test_a_session_answers_each_image_with_finite_logits(session, name, count):
    logits = session(images(session, count))
    assert logits.shape == (count, CLASSES[name])
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_an_image_is_answered_the_same_whatever_stands_beside_it(session):
    shown = images(session, 4)
    together = session(shown)
    alone = np.concatenate([session(shown[number : number + 1]) for number in range(4)])
    tolerance = 1e-5 * np.abs(together).max()  # float32 keeps 7 digits, and sums are made in another order
    assert np.abs(together - alone).max() <= tolerance < 0.01 * np.abs(together).max()
    assert np.abs(together[0] - together[1]).max() > 100 * tolerance


def test_the_same_images_are_answered_the_same_again_and_left_as_they_were(session):
    shown = images(session, 3)
    kept = shown.copy()
    assert np.array_equal(session(shown), session(shown))
    assert np.array_equal(shown, kept)


def test_an_inner_tensor_is_given_by_name(session, name):
    inside = session.outputs([INSIDE[name]])
    assert len(inside(images(session, 2))[INSIDE[name]]) == 2


def test_an_inner_tensor_that_is_not_there_is_refused(session):
    with pytest.raises(UsageError, match=r"unknown .* 'nothing'"):
        session.outputs(["nothing"])


def test_images_of_another_size_are_refused(session):
    shown = np.zeros((2, *session.input_shape[:2], session.input_shape[2] + 1), np.float32)
    with pytest.raises(CompressError, match="takes images of shape"):
        session(shown)
    with pytest.raises(CompressError, match="takes images of shape"):
        session(images(session, 2)[0])
    with pytest.raises(CompressError, match="takes images of shape"):
        session(images(session, 0))


def test_images_that_are_not_float32_are_refused(session):
    with pytest.raises(CompressError, match="takes normalised float32 images, and got uint8"):
        session(images(session, 2).astype(np.uint8))


def test_a_file_of_another_kind_is_refused(name, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\x08nonsense" * 20)
    with pytest.raises(CompressError, match="file"):
        open_session(name, path)
    with pytest.raises(CompressError, match="cannot read"):
        open_session(name, tmp_path / "missing")


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_a_device_that_is_not_there_is_an_error_and_never_the_cpu(name, tmp_path):
    path = WRITERS[name](tmp_path / "file")
    with pytest.raises(UsageError, match="unknown device 'gpu': give cpu, cuda or cuda:N"):
        open_session(name, path, device="gpu")
    with pytest.raises(ResourceError, match="cuda:99 was asked for"):
        open_session(name, path, device="cuda:99")


def test_no_threads_are_refused(name, tmp_path):
    with pytest.raises(UsageError, match="0 threads were asked for"):
        open_session(name, tmp_path / "file", threads=0)


def test_an_unknown_runtime_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="did you mean onnxruntime"):
        open_session("onnx-runtime", tmp_path / "file")


def test_a_runtime_that_is_not_installed_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(RUNTIMES, "martian", "martian_runtime:open")
    with pytest.raises(
        ResourceError, match=r"the runtime martian needs the package 'martian_runtime'.*compress-cnn\[martian\]"
    ):
        open_session("martian", tmp_path / "file")


def test_a_module_of_ours_that_is_missing_is_not_blamed_on_an_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(RUNTIMES, "lost", "compress.runtime.lost:open")
    with pytest.raises(ModuleNotFoundError):
        runtime.opener("lost")


def test_the_table_is_read_without_importing_any_runtime():
    import subprocess
    import sys

    code = "import sys, compress.runtime; sys.exit(bool({'torch', 'onnxruntime', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
