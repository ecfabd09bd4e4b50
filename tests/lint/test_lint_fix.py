"""What --fix makes of a graph: the same function, and kernels that compute it in integers."""

import numpy as np
import onnx_ir as ir
import pytest
from awake import ARCHITECTURES, awake, images
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from qdq import INT8, Graph
from test_lint_rules import BROKEN, CPU, OPENVINO, SOUND, TRT, one_conv

from compress.errors import CompressError
from compress.export.onnx import export
from compress.lint.check import check
from compress.lint.fix import EXACT, GROWTH, repair
from compress.lint.repairs import REPAIRS, ROUNDS
from compress.lint.rules import RULES, lint
from compress.runtime.onnxruntime import OnnxSession

REPAIRED = [
    case
    for case, (_, _, rule, _, _, words) in BROKEN.items()
    if rule in REPAIRS and not any(word in words for word in ("uantize", "eval"))
]


def shown(count=32):
    return np.random.default_rng(7).standard_normal((count, 3, 8, 8), dtype=np.float32)


def answers(content, inputs, optimise=False):
    return OnnxSession(content, optimise=optimise)(inputs)


class Reader(CalibrationDataReader):
    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        return next(({"images": batch} for batch in self.batches), None)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """ResNet-20 as onnxruntime's own quantizer writes it, by settings."""
    folder = tmp_path_factory.mktemp("quantized")
    plain = folder / "fp32.onnx"
    plain.write_bytes(export(awake(ARCHITECTURES["resnet20"])))
    batches = images((3, 32, 32), 16).numpy().reshape(4, 4, 3, 32, 32)
    int8 = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    symmetric = {"QuantizeBias": False, "ActivationSymmetric": True}
    made = {"defaults": {}, "for TensorRT": {**int8, "extra_options": symmetric}}
    found = {}
    for name, settings in made.items():
        quantize_static(plain, folder / "int8.onnx", Reader(batches), **settings)
        found[name] = (folder / "int8.onnx").read_bytes()
    return found


@pytest.mark.parametrize("case", REPAIRED)
def test_a_repair_leaves_nothing_of_its_finding_and_keeps_the_function(case):
    content, target, rule, *_ = BROKEN[case]
    done = repair(content, target)
    (made,) = done.repairs
    assert (made.rule, made.kept) == (rule, True)
    assert done.left == () == lint(done.content, target)
    before, after = (answers(graph, shown()) for graph in (content, done.content))
    spread = np.linalg.norm(before - before.mean(axis=0))
    if rule not in ROUNDS:
        assert np.linalg.norm(after - before) <= EXACT * spread < np.linalg.norm(1.01 * before - before)
    assert made.after <= made.before * GROWTH + EXACT


@pytest.mark.parametrize("case", SOUND)
def test_a_graph_without_findings_is_left_as_it_is(case):
    content, target = SOUND[case]
    done = repair(content, target)
    assert (done.content, done.repairs, done.left) == (content, (), ())


def test_repairing_twice_changes_nothing_more(quantized):
    once = repair(quantized["for TensorRT"], CPU)
    assert once.content != quantized["for TensorRT"]
    again = repair(once.content, CPU)
    assert (again.content, again.repairs, again.left) == (once.content, (), once.left)


def test_the_defaults_of_onnxruntime_are_brought_to_integer_kernels_bit_for_bit(quantized):
    content = quantized["defaults"]
    assert {finding.rule for finding in lint(content, CPU)} == {"activation-type", "weight-type", "float-island"}
    done = repair(content, CPU)
    assert {finding.rule for finding in done.left} == {"weight-type", "float-island"}
    inputs = images((3, 32, 32), 8, seed=3).numpy()
    assert np.array_equal(answers(content, inputs), answers(done.content, inputs))
    before, after = (OnnxSession(graph).integer_macs() for graph in (content, done.content))
    assert before < 60
    assert after == 100


def test_a_graph_made_for_tensorrt_is_brought_to_integer_kernels_of_a_cpu(quantized):
    content = quantized["for TensorRT"]
    found = {finding.rule for finding in lint(content, CPU)}
    assert found == {"activation-type", "unused-range", "float-island"}
    done = repair(content, CPU)
    assert {finding.rule for finding in done.left} == {"float-island"}
    assert all(made.kept for made in done.repairs)
    assert done.repairs[-1].after < done.repairs[0].before
    before, after = (OnnxSession(graph).integer_macs() for graph in (content, done.content))
    assert before < 60
    assert after == 100


def test_what_onnxruntime_writes_for_tensorrt_rounds_too_often_there(quantized):
    done = repair(quantized["for TensorRT"], TRT)
    assert [made.rule for made in done.repairs] == ["rounded-twice", "residual"]
    assert {finding.rule for finding in done.left} == {"float-island"}


def test_a_repair_that_changes_the_function_by_a_hundredth_is_undone(monkeypatch):
    def spoil(model, target):
        weight = model.graph.initializers["w"]
        weight.const_value = ir.tensor(np.float32(1.01) * weight.const_value.numpy(), name="w")
        return 1

    content, target, *_ = BROKEN["a batch norm behind a convolution"]
    monkeypatch.setitem(REPAIRS, "batch-norm", spoil)
    done = repair(content, target)
    (made,) = done.repairs
    assert not made.kept
    assert made.after > EXACT
    assert done.content == content
    assert [finding.rule for finding in done.left] == ["batch-norm"]


def test_rules_ignored_and_rules_spared_are_not_repaired():
    content, target, rule, *_ = BROKEN["int8 on a CPU"]
    assert repair(content, target, ignore=[rule]).content == content
    assert repair(content, OPENVINO).content == content


@pytest.mark.parametrize("batch", [1, 48])
def test_a_file_for_a_fixed_batch_is_proved_on_many_images_all_the_same(batch):
    graph = Graph(shape=(batch, 3, 8, 8), dtype=INT8, zero=3)
    content = graph.bytes(graph.held(graph.conv(graph.held("images"), "conv")))
    done = repair(content, CPU)
    assert [(each.rule, each.kept) for each in done.repairs] == [("activation-type", True)]


def test_a_batch_norm_in_training_is_not_folded():
    content, target, *_ = BROKEN["a batch norm in training"]
    assert repair(content, target).content == content


def test_every_repair_is_that_of_a_rule():
    assert set(REPAIRS) < set(RULES)
    assert set(REPAIRS) > ROUNDS


def test_a_graph_with_one_answer_for_everything_proves_nothing():
    graph = Graph(dtype=INT8, zero=3)
    value = graph.node("Mul", graph.held("images"), graph.store("nothing", np.float32(0)), name="mul")
    with pytest.raises(CompressError, match="has one answer for all images, so nothing proves"):
        repair(graph.bytes(value, 3), CPU)


def test_a_graph_of_free_image_size_cannot_be_run_and_so_not_repaired():
    content = one_conv(INT8, 3, shape=("N", 3, "H", 8))
    with pytest.raises(CompressError, match="is no classifier of images"):
        repair(content, CPU)


def test_a_file_is_checked_and_its_repaired_form_written(tmp_path):
    content, target, *_ = BROKEN["int8 on a CPU"]
    path, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    path.write_bytes(content)
    assert check(path, target.name).findings == lint(content, target)
    checked = check(path, target.name, output=output)
    assert (checked.findings, checked.output) == ((), output)
    assert path.read_bytes() == content
    assert lint(output.read_bytes(), target) == ()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CompressError, match="is not ONNX, or was cut short"):
        check(path, target.name)


@pytest.mark.parametrize(
    "case",
    [
        "int8 on a CPU",
        "one side in float",
        "rounded before the ReLU",
        "a ReLU with half of its integers",
    ],
)
def test_openvino_computes_in_integers_what_it_is_spared(case):
    pytest.importorskip("openvino")
    from compress.runtime.openvino import OpenvinoSession

    compiled = OpenvinoSession(BROKEN[case][0])._request.get_compiled_model()
    layers = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops()]
    kinds = [str(layer["runtimePrecision"].value) for layer in layers if layer["layerType"].value == "Convolution"]
    assert kinds
    assert set(kinds) <= {"u8", "i8"}


FLOAT = [
    "a ReLU with half of its integers",
    "a ReLU6 with half of its integers",
    "the wrong axis",
    "a bias on a scale of its own",
    "one side in float",
    "a sum of two convolutions",
    "a float input",
    "a float weight",
    "a float output",
]
"""Cases whose finding says that a layer stays float."""


@pytest.mark.parametrize("case", FLOAT)
def test_what_a_finding_says_stays_float_onnx_runtime_computes_in_float(case):
    content, target, *_ = BROKEN[case]
    assert target is CPU
    assert OnnxSession(content).integer_macs() < 100


@pytest.mark.parametrize("case", [case for case, (_, target) in SOUND.items() if target is CPU])
def test_what_has_no_findings_onnx_runtime_computes_in_integers(case):
    assert OnnxSession(SOUND[case][0]).integer_macs() in (None, 100)  # None is a graph without integers
