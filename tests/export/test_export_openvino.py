"""OpenVINO's files, made of the same ONNX graph."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import small_onnx

from compress import storage
from compress.errors import CompressError, ResourceError, UsageError
from compress.export import export
from compress.export.artifact import read_sidecar
from compress.export.openvino import made
from compress.export.settings import DEFAULT
from compress.runtime import open_session
from compress.runtime.onnxruntime import OnnxSession

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def artifact(nets, tmp_path_factory):
    return export(nets("digits_cnn")[0], tmp_path_factory.mktemp("out") / "net.xml", "openvino")


def test_it_answers_as_onnx_runtime_does(nets, artifact):
    _, content, shown = nets("digits_cnn")
    exact = OnnxSession(content, optimise=False)(shown)
    logits = open_session("openvino", artifact.path)(shown)
    tolerance = 1e-4 * np.abs(exact).max()  # parity's own for exact rewrites in FP32
    assert np.abs(logits - exact).max() < tolerance < np.abs(1.01 * exact - exact).max()


def test_the_sidecar_covers_both_files(artifact):
    weights = artifact.path.with_suffix(".bin")
    assert read_sidecar(artifact.path) == artifact
    assert artifact.parts == {"net.bin": storage.digest_file(weights)}
    assert artifact.size_bytes == artifact.path.stat().st_size + weights.stat().st_size
    assert (artifact.format, artifact.precision) == ("openvino", "fp32")
    assert "openvino" in artifact.tools


def test_weights_of_another_model_are_refused(artifact, tmp_path):
    for path in artifact.path.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = bytearray((tmp_path / "net.bin").read_bytes())
    weights[7] ^= 1
    (tmp_path / "net.bin").write_bytes(weights)
    with pytest.raises(CompressError, match=r"net\.bin is not the file that net\.xml\.json describes"):
        read_sidecar(tmp_path / "net.xml")
    (tmp_path / "net.bin").unlink()
    with pytest.raises(CompressError, match=r"cannot read the artifact .*net\.bin"):
        read_sidecar(tmp_path / "net.xml")


def test_the_same_graph_gives_the_same_files_also_in_another_process(tmp_path):
    graph, other = small_onnx.write(tmp_path / "a.onnx", small_onnx.QUANTIZED), small_onnx.write(tmp_path / "b.onnx")
    first = made(graph.read_bytes(), DEFAULT, tmp_path / "a.xml")
    made(other.read_bytes(), DEFAULT, tmp_path / "b.xml")
    again = made(graph.read_bytes(), DEFAULT, tmp_path / "a.xml")
    code = (
        "import sys; from pathlib import Path; from compress import storage; from compress.export.openvino import made;"
        "from compress.export.settings import DEFAULT; path = Path(sys.argv[1]);"
        "print(storage.digest_bytes(made(path.read_bytes(), DEFAULT, path.with_suffix('.xml')).content))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code, graph], capture_output=True, text=True, check=True).stdout
    assert first == again
    assert elsewhere.strip() == storage.digest_bytes(first.content)


def test_nothing_in_the_files_names_the_machine(tmp_path):
    found = made(small_onnx.model().SerializeToString(), DEFAULT, tmp_path / "a.xml")
    for content in (found.content, *found.parts.values()):
        assert str(tmp_path).encode() not in content
        assert b"/tmp" not in content
        assert b"/home" not in content


def test_an_operator_it_has_no_word_for_is_named(tmp_path):
    model = small_onnx.model()
    model.graph.node[1].domain, model.graph.node[1].op_type = "mine", "Unheard"
    model.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    with pytest.raises(CompressError, match=r"OpenVINO [\d.]+ cannot read the ONNX graph: .*mine\.Unheard"):
        made(model.SerializeToString(), DEFAULT, tmp_path / "a.xml")


def test_another_ending_than_its_own_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"OpenVINO's files are NAME\.xml and NAME\.bin. Give -o NAME\.xml"):
        made(small_onnx.model().SerializeToString(), DEFAULT, tmp_path / "a.onnx")


def test_without_openvino_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ResourceError, match=r"OpenVINO needs the package 'openvino'.*compress-cnn\[openvino\]"):
        made(b"", DEFAULT, tmp_path / "a.xml")
