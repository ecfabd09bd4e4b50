"""The step: what it asks for, what it says, and a checkpoint that is the same network in any process."""

import dataclasses
import subprocess
import sys
from functools import cache

import numpy as np
import onnx
import pytest
import torch

from compress import checkpoint as files
from compress.architecture import Architecture
from compress.build import build, structure
from compress.checkpoint import Checkpoint
from compress.data.arrays import ArraySplit, Part
from compress.data.load import load
from compress.data.normalise import normalise
from compress.environment import environment
from compress.errors import CompressError, UsageError
from compress.explain import explain
from compress.export import export as to_file
from compress.export.onnx import export
from compress.fold.step import Fold
from compress.pipeline import Resources
from compress.quantize.step import Quantize, distance
from compress.runtime.onnxruntime import OnnxSession
from compress.storage import digest_bytes
from compress.subject import entry


@cache
def learning():
    """The digits, to calibrate on."""
    return load("digits").learning


@cache
def folded():
    """A network for the digits with random weights, its batch norms folded."""
    architecture = Architecture("compress", "digits_cnn", {"num_classes": 10}, (1, 32, 32))
    network = structure(architecture)
    with torch.no_grad():
        network.train()(normalise(next(learning().train.batches(256))[0], learning().spec.preprocessing))
    return Fold()(Checkpoint(architecture, network.state_dict(), learning().spec))


@cache
def quantized():
    """The same, quantized as asked for by default but on fewer images."""
    return Quantize(images=96, batch=32)(folded(), Resources(learning()))


@cache
def exported():
    """The same as ONNX."""
    return export(quantized())


def calibrating_on(images, labels):
    """Resources whose calibration images (N, H, W, C) are these."""
    split = ArraySplit(Part(images, labels), np.arange(len(images)))
    return Resources(dataclasses.replace(learning(), calibration=split))


def digits(count):
    """Real digits as (N, H, W, C)."""
    return next(learning().calibration.batches(count))[0].numpy().transpose(0, 2, 3, 1)


def test_every_layer_is_quantized_and_the_history_says_on_what():
    result = quantized()
    assert result.architecture.precision == "int8"
    assert result.architecture.quantization.target == "onnxruntime-cpu"
    assert result.history[-1].notes == ("calibrated on 96 images",)
    assert result.history[-1].refusals == ()
    assert not [name for name in result.weights if name.endswith("weight")]
    (distance,) = result.history[-1].figures["logit_distance"]
    assert 0 < distance < 0.2


def test_the_images_decide_and_neither_the_seed_nor_the_batch_size_does():
    again = Quantize(images=96, batch=7)(folded(), Resources(learning(), seed=5))
    other = Quantize(images=32, batch=32)(folded(), Resources(learning()))
    assert again.fingerprint == quantized().fingerprint != other.fingerprint


def test_progress_counts_the_images():
    told = []
    resources = Resources(learning(), progress=lambda task, done, total, detail="": told.append((task, done, total)))
    Quantize(images=50, batch=20)(folded(), resources)
    assert told == [("calibrate", 20, 50), ("calibrate", 40, 50), ("calibrate", 50, 50)]


AGAIN = """
import sys, numpy, torch
torch.set_num_threads(1)
from pathlib import Path
from compress import checkpoint
from compress.build import build
from compress.export.onnx import export
from compress.storage import digest_bytes
from compress.subject import entry
folder = Path(sys.argv[1])
found = checkpoint.load(folder / "quantized.safetensors")
with torch.no_grad():
    logits = build(found)(torch.from_numpy(numpy.load(folder / "images.npy")))
assert "torchao" not in sys.modules, "torchao was imported"
assert numpy.array_equal(logits.numpy(), numpy.load(folder / "logits.npy")), "the logits differ"
print(digest_bytes(export(found)))
"""


def test_another_process_without_torchao_has_the_same_logits_and_the_same_onnx(tmp_path):
    images = normalise(next(learning().validation.batches(32))[0], learning().spec.preprocessing)
    with torch.no_grad():
        logits = build(quantized())(images)
    files.save(quantized(), tmp_path / "quantized.safetensors")
    np.save(tmp_path / "images.npy", images.numpy())
    np.save(tmp_path / "logits.npy", logits.numpy())
    ran = subprocess.run([sys.executable, "-c", AGAIN, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == digest_bytes(exported())


def test_onnxruntime_computes_every_layer_in_integers():
    assert OnnxSession(exported()).integer_macs() == 100


def test_the_file_holds_every_weight_in_one_byte():
    weights = [tensor for tensor in onnx.load_model_from_string(exported()).graph.initializer if len(tensor.dims) > 1]
    assert len(weights) == len([name for name in quantized().weights if name.endswith("weight.integer")])
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.INT8}


def test_few_images_missing_classes_and_silent_activations_are_said():
    weights = {name: tensor.clone() for name, tensor in folded().weights.items()}
    weights["conv1.bias"] -= 1e4
    silenced = dataclasses.replace(folded(), weights=weights)
    result = Quantize(images=64)(silenced, calibrating_on(digits(1), np.zeros(1, np.int64)))
    assert result.history[-1].notes == (
        "calibrated on 1 image",
        "64 calibration images were asked for, and there are no more than 1",
        "no calibration image of 9 of the 10 classes: 1, 2, 3, ...",
        "zero for every calibration image, and will stay so: 1 activation",
    )


@pytest.mark.parametrize("images", [np.zeros((8, 32, 32, 1), np.uint8), np.full((8, 32, 32, 1), 200, np.uint8)])
def test_images_that_show_nothing_are_refused(images):
    with pytest.raises(CompressError, match="calibration on 8 images shows nothing"):
        Quantize()(folded(), calibrating_on(images, np.arange(8)))


def test_no_images_at_all_are_refused():
    with pytest.raises(CompressError, match="calibration on 0 images shows nothing"):
        Quantize()(folded(), calibrating_on(np.zeros((0, 32, 32, 1), np.uint8), np.zeros(0, np.int64)))


def test_data_is_needed():
    with pytest.raises(UsageError, match="quantize needs images"):
        Quantize()(folded())


def test_images_of_another_size_are_refused():
    spec = dataclasses.replace(learning().spec, image_shape=(3, 32, 32))
    with pytest.raises(CompressError, match="3x32x32"):
        Quantize()(folded(), Resources(dataclasses.replace(learning(), spec=spec)))


def test_quantizing_twice_is_refused():
    with pytest.raises(CompressError, match="quantize needs an unquantized network"):
        Quantize()(quantized(), Resources(learning()))


def test_a_network_that_was_not_folded_is_refused():
    unfolded = dataclasses.replace(folded(), architecture=dataclasses.replace(folded().architecture, folded=None))
    with pytest.raises(CompressError, match="fold it first"):
        Quantize()(unfolded, Resources(learning()))


@pytest.mark.parametrize(
    "settings",
    [
        {"images": 0},
        {"batch": 0},
        {"target": "gpu"},
        {"observer": "max"},
        {"percentile": 99.0},
        {"weight_scales": "tensor"},
        {"max_drop": "-1pp"},
        {"max_drop": "1"},
        {"iterations": 10},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(
        ValueError, match=next(iter(settings)).replace("weight_scales", "scale for each output channel")
    ):
        Quantize(**settings)


def agreeing():
    """Resources whose validation labels are what the float network answers, so that every change of answer is a loss."""
    pixels, _ = next(learning().validation.batches(96))
    with torch.no_grad():
        labels = build(folded())(normalise(pixels, learning().spec.preprocessing)).argmax(1)
    split = ArraySplit(Part(pixels.numpy().transpose(0, 2, 3, 1), labels.numpy()), np.arange(len(labels)))
    return Resources(dataclasses.replace(learning(), validation=split))


FEW = {"images": 64, "target": "torch", "weight_bits": 3}


def test_each_repair_says_what_it_gained():
    repairs = {"equalize": True, "adaround": True, "iterations": 50, "bias_correction": True}
    record = Quantize(**FEW, **repairs)(folded(), agreeing()).history[-1]
    for repair in ("equalize", "adaround", "bias_correction"):
        before, after = record.figures[f"{repair}_distance"]
        assert any(
            note.startswith(repair) and f"{before:.2%}" in note and f"{after:.2%}" in note for note in record.notes
        )
        assert f"{repair}_top1" in record.figures
    assert record.figures["adaround_distance"][0] == record.figures["equalize_distance"][1]
    assert (
        "judged on 96 validation images, which the network was trained on: on new ones it may lose more" in record.notes
    )


def test_a_simulated_network_says_so_and_is_not_exported(tmp_path):
    result = Quantize(**FEW)(folded(), Resources(learning()))
    assert result.history[-1].notes[0] == "simulated: size only, no speed"
    assert result.architecture.precision == "w3a8"
    files.save(result, tmp_path / "w3.safetensors")
    assert "simulated: size only, no speed" in explain(tmp_path / "w3.safetensors")["precision"]
    assert entry(tmp_path / "w3.safetensors", environment(1)).notes == (
        "w3.safetensors is simulated: size only, no speed",
    )
    with pytest.raises(CompressError, match="no runtime computes on its integers"):
        to_file(result, tmp_path / "w3.onnx")


def test_four_bits_take_half_a_byte_in_the_file_and_come_back_bit_for_bit(tmp_path):
    result = Quantize(images=64, target="torch", weight_bits=4)(folded(), Resources(learning()))
    files.save(result, tmp_path / "w4.safetensors")
    weights = sum(tensor.numel() for name, tensor in folded().weights.items() if name.endswith("weight"))
    packed = sum(tensor.numel() for name, tensor in result.weights.items() if name.endswith("weight.integer"))
    assert weights / 2 <= packed < 1.01 * weights / 2 + 10
    images = normalise(next(learning().validation.batches(16))[0], learning().spec.preprocessing)
    with torch.no_grad():
        assert build(files.load(tmp_path / "w4.safetensors"))(images).equal(build(result)(images))


def test_excluded_layers_stay_in_float_and_are_exported_so():
    result = Quantize(images=64, exclude=("conv2",))(folded(), Resources(learning()))
    (refusal,) = result.history[-1].refusals
    assert (refusal.layer, refusal.reason) == ("conv2", "it was excluded")
    assert "conv2.weight" in result.weights
    assert 0 < OnnxSession(export(result)).integer_macs() < 100


@pytest.mark.parametrize("name", ["conv9", "bn1"])
def test_a_layer_that_is_not_there_or_was_folded_away_cannot_be_excluded(name):
    with pytest.raises(UsageError, match=f"unknown layer '{name}'.* There are: block2, block2.conv1, "):
        Quantize(exclude=(name,))(folded(), Resources(learning()))


def test_the_largest_drop_is_met_by_layers_left_in_float_with_the_reason():
    settings = {"images": 64, "target": "torch", "weight_bits": 3}
    lost = Quantize(**settings, max_drop="100pp")(folded(), agreeing())
    assert not lost.history[-1].refusals
    result = Quantize(**settings, max_drop="10pp")(folded(), agreeing())
    assert result.history[-1].refusals
    assert all(
        "for the largest drop: alone it moves the logits by" in left.reason for left in result.history[-1].refusals
    )
    validation = agreeing().data.validation
    pixels, labels = next(validation.batches(96))
    x = normalise(pixels, learning().spec.preprocessing)
    with torch.no_grad():
        tops = [100 * float((build(each)(x).argmax(1) == labels).double().mean()) for each in (lost, result)]
    assert tops[0] < 90 <= tops[1]


def test_a_largest_drop_that_cannot_be_met_says_how_near_it_came():
    with pytest.raises(CompressError, match=r"a largest drop of 0 pp was asked for, and the least that was reached on"):
        Quantize(images=64, target="torch", weight_bits=2, activation_bits=2, max_drop="0pp")(folded(), agreeing())


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_make_infinities_are_refused(value):
    weights = {name: tensor.clone() for name, tensor in folded().weights.items()}
    weights["conv1.bias"][0] = value
    with pytest.raises(CompressError, match="NaN or infinity"):
        Quantize(images=16)(dataclasses.replace(folded(), weights=weights), Resources(learning()))


def test_a_network_that_cannot_be_had_back_from_its_checkpoint_is_refused():
    """No input is known that leads there: two different networks stand for one."""
    one, other = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)
    with pytest.raises(CompressError, match="cannot be had back from its checkpoint"):
        distance(torch.randn(3, 4), one, one, other)


def test_resnet20_on_cifar10_keeps_its_accuracy(cifar10, resnet20_weights):
    """Within 0.3 points on 2,000 images: the standard error of such a difference, where 1 % of the answers change, is 0.2."""
    from safetensors.torch import load_file

    data = load(f"npz:{cifar10}")
    architecture = Architecture("compress", "resnet20", {"num_classes": 10}, (3, 32, 32))
    before = Fold()(Checkpoint(architecture, load_file(resnet20_weights), data.spec))
    after = Quantize(images=256)(before, Resources(data.learning))
    images, labels = next(data.test.batches(2000))
    x = normalise(images, data.spec.preprocessing).numpy()
    session, reference = OnnxSession(export(after)), OnnxSession(export(before))
    top1, exact = (100 * np.mean(each(x).argmax(1) == labels.numpy()) for each in (session, reference))
    assert session.integer_macs() == 100
    assert abs(top1 - exact) <= 0.3
