"""Training on integers: what is trained is what is converted, and everything a training can do it can do here."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from on_integers import TRAIN, Flat, Groups, converted, images, logits, prepared, trained, trained_before
from tiny_training import USER, same
from torch import nn

from compress import checkpoint as files
from compress import document
from compress.build import build
from compress.data.load import load
from compress.data.normalise import normalise
from compress.errors import CompressError, UsageError
from compress.explain import explain
from compress.export.onnx import export
from compress.fold.step import Fold
from compress.networks import UserNetwork
from compress.pipeline import Resources, run
from compress.prune.sparsify import Sparsify
from compress.prune.step import Prune
from compress.quantize.qat_step import QAT, ConvertQAT, PrepareQAT
from compress.quantize.step import Quantize
from compress.quantize.target import RUN
from compress.runtime.onnxruntime import OnnxSession
from compress.train.step import Train

DIGITS = Path(__file__).parents[2] / "models/digits.safetensors"


class Choosing(nn.Module):
    """One whose calls depend on what it is shown."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 3)

    def forward(self, x):
        return self.head(x.flatten(1)) if x.sum() > 0 else self.head(-x.flatten(1))


@pytest.mark.parametrize(
    ("target", "step_sizes"),
    [*((name, "observed") for name in RUN), ("onnxruntime-cpu", "learned"), ("tensorrt", "learned")],
)
def test_what_was_trained_is_what_is_converted_bit_for_bit(target, step_sizes):
    (before, given), after = trained(target, step_sizes), converted(target, step_sizes)
    assert torch.equal(logits(before, given), logits(after, given))
    assert after.architecture.prepared is None and after.architecture.folded
    assert after.history[-1].notes == (
        "4 batch norms folded",
        "the answers are those of the trained network, bit for bit",
    )
    assert not torch.equal(logits(before, given), logits(trained_before()[0], given))


def test_four_bits_are_trained_and_converted_just_so():
    start, given = prepared(target="torch", weight_bits=4)
    before = TRAIN.model_copy(update={"epochs": 1})(start, given)
    after = ConvertQAT()(before, given)
    assert torch.equal(logits(before, given), logits(after, given))
    weights = [edge for edge in after.architecture.quantization.edges if edge.tensor]
    assert {(edge.low, edge.high) for edge in weights} == {(-7, 7)}
    with pytest.raises(ValueError, match="computes on 8 bits"):
        PrepareQAT(weight_bits=4)


def test_a_symmetric_range_of_what_is_never_negative_starts_at_zero_in_both():
    """With FusedMovingAvgObsFakeQuantize one of them had zero point -127 and half the scale."""
    before, _ = trained("tensorrt", "observed")
    ranges = [
        before.weights[f"quantization.{number}.min_val"]
        for number in range(len(before.weights))
        if f"quantization.{number}.min_val" in before.weights
    ]
    assert any(each.shape == (1,) and each >= 0 for each in ranges)
    assert not converted("tensorrt", "observed").weights["quantization.zero_point"].any()


def test_the_network_is_as_quantizing_after_training_would_write_it():
    (before, given), after = trained("onnxruntime-cpu", "observed"), converted("onnxruntime-cpu", "observed")
    float_weights = {name: tensor for name, tensor in before.weights.items() if not name.startswith("quantization.")}
    folded = Fold()(
        dataclasses.replace(
            before, architecture=dataclasses.replace(before.architecture, prepared=None), weights=float_weights
        ),
        given,
    )
    usual = Quantize(images=32)(folded, given)
    assert after.architecture == usual.architecture
    assert {name: (t.shape, t.dtype) for name, t in after.weights.items()} == {
        name: (t.shape, t.dtype) for name, t in usual.weights.items()
    }
    assert same(
        {n: t for n, t in after.weights.items() if n.endswith("bias")},
        {n: t for n, t in usual.weights.items() if n.endswith("bias")},
    )


def test_a_prepared_checkpoint_is_data_and_the_same_network_when_read_again(tmp_path):
    before, given = trained("onnxruntime-cpu", "observed")
    files.save(before, tmp_path / "prepared.safetensors")
    again = files.load(tmp_path / "prepared.safetensors")
    assert again.fingerprint == before.fingerprint
    assert torch.equal(logits(again, given), logits(before, given))
    shown = explain(tmp_path / "prepared.safetensors")
    assert shown["precision"] == "fp32, training on the integers of onnxruntime-cpu"
    assert "prepared" not in document.plain(trained_before()[0].architecture)


def test_calls_that_are_others_than_when_it_was_prepared_are_refused():
    before, given = trained("onnxruntime-cpu", "observed")
    other = dataclasses.replace(
        before.architecture, prepared=dataclasses.replace(before.architecture.prepared, operators="sha256:0")
    )
    with pytest.raises(CompressError, match=r"calls were others than they are now.*Prepare it again"):
        build(dataclasses.replace(before, architecture=other), given.user)


@pytest.mark.parametrize(("norms", "ranges"), [(0.0, 1.0), (1.0, 0.0)])
def test_statistics_and_ranges_are_held_from_their_share_on(norms, ranges):
    start, given = trained_before()
    before = PrepareQAT(norms=norms, ranges=ranges)(start, given)
    after = TRAIN.model_copy(update={"epochs": 1})(before, given).weights
    held = {name: torch.equal(after[name], before.weights[name]) for name in after}
    assert {held[f"{norm}.running_mean"] for norm in ("one", "two", "three", "four")} == {norms == 0}
    assert {each for name, each in held.items() if name.endswith("max_val")} == {ranges == 0}


def test_a_batch_norm_follows_with_its_own_momentum():
    """Another one, 0.1 for 0.01, would move the statistics ten times as far; rounding moves them by a few per cent."""
    start, given = trained_before()
    network, plain = build(prepared()[0], given.user).train(), build(start, given.user).train()
    for each in (network, plain):
        each(images(given))
    ours, theirs = (
        each.get_buffer("one.running_mean") - start.weights["one.running_mean"] for each in (network, plain)
    )
    assert (ours - theirs).norm() < 0.1 * theirs.norm()


def test_learned_step_sizes_learn_and_stay_apart_from_ranges():
    before, after = prepared(step_sizes="learned")[0], trained("onnxruntime-cpu", "learned")[0].weights
    steps = [name for name in after if name.endswith(".step")]
    assert steps and not any(torch.equal(after[name], before.weights[name]) for name in steps)
    assert all(torch.equal(after[name], before.weights[name]) for name in after if name.endswith("_val"))


@pytest.mark.parametrize(
    "settings", [{"averaging": "ema"}, {"precision": "bf16"}, {"accumulate": 2, "clip": 1.0, "max_norm": 1.0}]
)
def test_other_settings_of_a_training_hold_here_too(settings):
    start, given = prepared()
    before = TRAIN.model_copy(update=settings)(start, given)
    assert torch.equal(logits(before, given), logits(ConvertQAT()(before, given), given))


def test_max_norm_finds_the_layers():
    start, given = prepared()
    after = TRAIN.model_copy(update={"max_norm": 0.1, "epochs": 1})(start, given).weights
    assert after["stem.weight"].flatten(1).norm(dim=1).max() <= 0.1 * (1 + 1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.1},
        {"features": ("stem",)},
        {"checkpointing": True},
        {"group_lasso": 0.1},
        {"new_head": True},
        {"layers": "head"},
    ],
)
def test_settings_about_modules_are_refused(settings):
    before, given = prepared()
    with pytest.raises(UsageError, match=f"{next(iter(settings))} was asked for, and a network prepared"):
        Train(**settings)(before, given)


def test_an_average_that_measures_statistics_anew_is_refused():
    before, given = prepared()
    with pytest.raises(UsageError, match="averaging swa was asked for"):
        Train(averaging="swa")(before, given)


@pytest.mark.parametrize("structure", [{"structure": "2:4"}, {"sparsity": 0.7}])
def test_zeros_are_zeros_in_the_integers_of_the_exported_file(structure):
    start, given = trained_before()
    sparse = Sparsify(**structure, recalibrate=False)(start, given)
    after = run([PrepareQAT(), TRAIN, ConvertQAT()], sparse, given)
    masked = [f"{layer}.weight" for layer in sparse.architecture.masked]
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_model_from_string(export(after, given.user)).graph.initializer
    }
    integers = {name: array for name, array in stored.items() if array.dtype == np.int8 and array.ndim > 1}
    assert len(masked) >= 3
    for name in masked:
        zeros = (sparse.weights[name] == 0).numpy()
        (found,) = [array for key, array in integers.items() if key.startswith(name)]
        assert zeros.any() and not found[zeros].any() and found.any()


def test_networks_without_batch_norms_go_on():
    start, given = trained_before(Groups)
    before = PrepareQAT()(start, given)
    assert before.architecture.prepared.folded == ()
    after = ConvertQAT()(before, given)
    assert torch.equal(logits(before, given), logits(after, given))
    assert after.architecture.precision == "int8"


def test_a_linear_layer_may_read_every_place_of_every_channel():
    start, given = trained_before(Flat)
    before = run([PrepareQAT(images=32), Train(epochs=1, batch=16)], start, given)
    after = ConvertQAT()(before, given)
    assert torch.equal(logits(before, given), logits(after, given))
    shown = images(given).numpy()
    apart = np.abs(OnnxSession(export(after, user=given.user), optimise=False)(shown) - logits(after, given).numpy())
    assert apart.max() < 1e-4 * np.abs(logits(after, given).numpy()).max()


def test_a_network_that_cannot_be_followed_is_refused_with_the_place():
    start, given = trained_before()
    user = UserNetwork(Choosing, USER.name, USER.digest)
    start = dataclasses.replace(start, weights=Choosing().state_dict())
    with pytest.raises(CompressError, match=r"torch.export cannot follow this network at test_qat.py:\d+"):
        PrepareQAT()(start, dataclasses.replace(given, user=user))


def test_steps_in_another_order_are_refused_with_the_right_one():
    start, given = trained_before()
    before, after = prepared()[0], converted("onnxruntime-cpu", "observed")
    for step, found, words in [
        (PrepareQAT(), Fold()(start, given), "start from the checkpoint before it"),
        (PrepareQAT(), after, "quantization comes last"),
        (PrepareQAT(), before, "prepare_qat needs a network that does not train on integers"),
        (ConvertQAT(), start, "the order is prepare_qat, train, convert_qat"),
        (Prune(macs=0.5), before, "convert_qat"),
        (Sparsify(sparsity=0.5), before, "convert_qat"),
        (Fold(), before, "convert_qat"),
        (Quantize(), before, "convert_qat"),
        (Train(), after, "prune and train the checkpoint from before it"),
    ]:
        with pytest.raises(CompressError, match=words):
            step(found, given)
    with pytest.raises(CompressError, match="no runtime has a word for that"):
        export(before, given.user)


def test_few_images_and_missing_classes_are_said():
    start, given = trained_before()
    few = dataclasses.replace(given.data.calibration, positions=given.data.calibration.positions[:1])
    made = PrepareQAT()(start, dataclasses.replace(given, data=dataclasses.replace(given.data, calibration=few)))
    told = [note.partition(":")[0] for note in made.history[-1].notes]
    assert told[1:3] == ["calibrated on 1 image", "512 calibration images were asked for, and there are no more than 1"]
    assert told[3].startswith("no calibration image of ")


def test_calibration_images_are_needed():
    with pytest.raises(UsageError, match="prepare_qat needs images"):
        PrepareQAT()(trained_before()[0])


def test_in_one_go_it_is_the_three_steps_and_follows_the_checkpoint_given():
    start, given = trained_before()
    result = QAT(epochs=1, training={"batch": 16})(start, dataclasses.replace(given, teacher=None))
    assert [record.step for record in result.history] == ["prepare_qat", "train", "convert_qat"]
    settings = result.history[1].settings
    assert (settings["distillation"], settings["batch"], settings["epochs"]) == (0.9, 16, 1)
    assert result.architecture.precision == "int8"
    with pytest.raises(ValueError, match="give epochs beside training"):
        QAT(training={"epochs": 3})


def test_on_digits_all_three_have_the_same_accuracy_and_all_is_computed_on_integers():
    """The trained network, the converted one, and the file in ONNX Runtime, on the test images."""
    data, start = load("digits"), files.load(DIGITS)
    learning = dataclasses.replace(
        data.learning, train=dataclasses.replace(data.learning.train, positions=data.learning.train.positions[:320])
    )
    given = Resources(learning, teacher=start)
    before = Train(epochs=1, batch=32, rate=3e-4, distillation=0.9)(PrepareQAT(images=64)(start, given), given)
    after = ConvertQAT()(before, given)
    session = OnnxSession(export(after))
    shown, labels = next(data.test.batches(len(data.test)))
    x = normalise(shown, data.spec.preprocessing)
    with torch.no_grad():
        answers = [build(start)(x), build(before)(x), build(after)(x), torch.from_numpy(session(x.numpy()))]
    exact, *top1 = (100 * float((each.argmax(1) == labels).float().mean()) for each in answers)
    assert max(top1) - min(top1) <= 0.1
    assert min(top1) >= exact - 1.0
    assert session.integer_macs() == 100
