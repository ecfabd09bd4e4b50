"""Every setting of the step `Train` does what it says, and what cannot be done is said."""

import dataclasses

import pytest
import torch
from pydantic import ValidationError
from tiny_training import DATA, QUIET, START, TEACHER, USER, Everything, checkpoint, resources, same, task, trained

from compress.errors import CompressError, ResourceError, UsageError
from compress.networks import UserNetwork
from compress.train.step import Train

CHANGES = {
    "epochs": {"epochs": 3},
    "batch": {"batch": 8},
    "optimiser": {"optimiser": "adam"},
    "momentum": {"momentum": 0.5},
    "nesterov": {"nesterov": False},
    "weight_decay": {"weight_decay": 0.1},
    "rate": {"rate": 0.01},
    "schedule": {"schedule": "linear"},
    "cycles": {"schedule": "restarts", "cycles": 2},
    "decay": {"schedule": "exponential", "decay": 0.5},
    "warmup": {"warmup": 1.0},
    "warmup_shape": {"warmup": 1.0, "warmup_shape": "cosine"},
    "label_smoothing": {"label_smoothing": 0.2},
    "focal": {"focal": 2.0},
    "class_weights": {"class_weights": ("red=3",)},
    "distillation": {"distillation": 0.5},
    "temperature": {"distillation": 0.5, "temperature": 1.0},
    "features": {"features": ("blocks.1",)},
    "feature_weight": {"features": ("blocks.1",), "feature_weight": 5.0},
    "feature_loss": {"features": ("blocks.1",), "feature_loss": "hint"},
    "l1": {"l1": 0.1},
    "l2": {"l2": 0.1},
    "group_lasso": {"group_lasso": 0.1},
    "norm_scales": {"norm_scales": 0.1},
    "max_norm": {"max_norm": 0.5},
    "mixup": {"mixup": 1.0},
    "cutmix": {"cutmix": 1.0},
    "mixing": {"mixup": 1.0, "mixing": 0.3},
    "augmentation": {"augmentation": "heavy"},
    "padding": {"padding": 1},
    "flip": {"flip": True},
    "rotation": {"rotation": 20.0},
    "translation": {"translation": 0.2},
    "shear": {"shear": 20.0},
    "scaling": {"scaling": 0.3},
    "brightness": {"brightness": 0.3},
    "contrast": {"contrast": 0.3},
    "saturation": {"saturation": 0.3},
    "hue": {"hue": 0.2},
    "policy": {"policy": "autoaugment"},
    "erasing": {"erasing": 0.5},
    "dropout": {"dropout": 0.3},
    "spatial_dropout": {"spatial_dropout": 0.3},
    "drop_block": {"drop_block": 0.3},
    "stochastic_depth": {"stochastic_depth": 0.5},
    "averaging": {"averaging": "ema"},
    "ema_decay": {"averaging": "ema", "ema_decay": 0.1},
    "swa_start": {"averaging": "swa", "swa_start": 0.3},
    "clip": {"clip": 0.01},
    "clip_by": {"clip": 0.01, "clip_by": "adaptive"},
    "accumulate": {"accumulate": 2},
    "precision": {"precision": "bf16"},
    "patience": {"epochs": 30, "rate": 1e-6, "patience": 1},
    "improvement": {"epochs": 6, "patience": 2, "improvement": 100.0},
    "smoothing": {"epochs": 8, "patience": 8, "smoothing": 0.9},
    "restore_best": {"epochs": 30, "rate": 1e-6, "patience": 3, "restore_best": False},
    "layers": {"layers": "head"},
    "unfreeze_epochs": {"layers": "gradual", "unfreeze_epochs": 1},
    "depth_rate": {"depth_rate": 0.1},
}
"""For each setting, values under which the result is another than with the setting at its default."""
ELSEWHERE = {"new_head", "checkpointing", "save_minutes", "tensorboard"}


def test_every_setting_is_tested():
    assert set(CHANGES) | ELSEWHERE == set(Train.model_fields)


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_changes_the_result(name):
    with_it, others = CHANGES[name], {key: value for key, value in CHANGES[name].items() if key != name}
    found, before = trained(**with_it), trained(**others)
    assert not same(found.weights, before.weights)
    assert all(tensor.isfinite().all() for tensor in found.weights.values())
    assert found.history[-1].settings[name] != before.history[-1].settings[name]


def test_the_same_settings_give_the_same_weights_and_checkpointing_changes_none():
    settings = {"drop_block": 0.3, "averaging": "ema", "mixup": 1.0, "augmentation": "heavy"}
    first = trained(**settings)
    assert same(first.weights, trained(**settings).weights)
    assert same(first.weights, trained(**settings, checkpointing=True).weights)


def test_l1_leaves_exact_zeros_and_l2_none():
    l1, l2 = trained(l1=0.2), trained(l2=0.2)
    assert float((l1.weights["blocks.0.conv.weight"] == 0).float().mean()) > 0.3
    assert not (l2.weights["blocks.0.conv.weight"] == 0).any()


def test_group_lasso_empties_a_weak_channel_in_every_layer_that_makes_it():
    data = task(channels=1)
    start = checkpoint(data)
    # one channel inside a residual block, and one of the stream that two convolutions add up
    makers = {5: ("block2.conv1", "block2.bn1"), 3: ("conv3", "bn3", "block3.conv2", "block3.bn2")}
    for channel, layers in makers.items():
        for layer in layers:
            start.weights[f"{layer}.weight"][channel] *= 1e-3
    after = trained(start, data, group_lasso=0.1)
    for channel, layers in makers.items():
        for layer in layers:
            weight = (
                after.weights[f"{layer}.weight"].flatten(1)
                if "conv" in layer
                else after.weights[f"{layer}.weight"][:, None]
            )
            assert (weight == 0).all(1).nonzero().flatten().tolist() == [channel]
            assert "conv" in layer or after.weights[f"{layer}.bias"][channel] == 0
    plain = trained(start, data)
    assert all(
        (plain.weights[f"{layer}.weight"][channel] != 0).any() for channel in makers for layer in makers[channel]
    )


def test_masked_weights_stay_zero_and_the_others_learn():
    start = checkpoint(DATA, masked=("blocks.0.conv",))
    zeros = torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    start.weights["blocks.0.conv.weight"][zeros] = 0
    for settings in ({}, {"averaging": "ema"}, {"optimiser": "adamw"}, {"averaging": "swa", "swa_start": 0.0}):
        after = trained(start, **settings).weights["blocks.0.conv.weight"]
        assert torch.equal(after == 0, zeros)


def test_class_weights_may_be_balanced_or_named():
    uneven = dataclasses.replace(DATA, train=dataclasses.replace(DATA.train, positions=DATA.train.positions[:40]))
    assert not same(trained(data=uneven, class_weights=("balanced",)).weights, trained(data=uneven).weights)
    assert not same(trained(class_weights=("red=3",)).weights, trained(class_weights=("green=3",)).weights)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("read=2",), r"unknown class 'read': did you mean red"),
        (("red",), r"class weight 'red' gives no number: write red=2.5, or balanced"),
        (("red=much",), r"class weight 'red=much' is no number: write red=2.5, or balanced"),
        (("red=-1",), r"class weights red=-1: give finite numbers, none below zero"),
        (("red=nan",), r"class weights red=nan"),
    ],
)
def test_class_weights_that_mean_nothing_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        trained(class_weights=words)


def test_the_history_says_how_the_run_went():
    record = trained(save_minutes=1.0).history[-1]
    assert record.notes[0] == "kept epoch 2 of 2"
    assert " validation): " in record.notes[-1]
    assert set(record.figures) == {"train_loss", "train_top1", "validation_top1", "rate"}
    assert not {"save_minutes", "tensorboard"} & set(record.settings)


def test_swa_holds_the_rate_where_averaging_begins():
    rates = trained(epochs=4, averaging="swa", swa_start=0.5).history[-1].figures["rate"]
    plain = trained(epochs=4).history[-1].figures["rate"]
    assert rates[2] == rates[3] == pytest.approx(0.05 * 0.5)
    assert rates[:2] == plain[:2] and plain[3] < rates[3]


def test_patience_keeps_the_best_epoch_or_where_told_so_the_last():
    best = trained(epochs=30, rate=1e-6, patience=2)
    last = trained(epochs=30, rate=1e-6, patience=2, restore_best=False)
    assert best.history[-1].notes[0] != last.history[-1].notes[0]
    assert (
        last.history[-1].notes[0]
        == f"kept epoch {len(last.history[-1].figures['rate'])} of {len(last.history[-1].figures['rate'])}"
    )


# bad input


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(CompressError, match="a batch of 500 was asked for, and the train split has 86 images"):
        trained(batch=500)


def test_more_pieces_than_images_are_refused():
    with pytest.raises(ValidationError, match="a batch of 4 images cannot be computed in 8 pieces"):
        Train(batch=4, accumulate=8)


def test_distillation_without_a_teacher_is_refused():
    with pytest.raises(UsageError, match="following a teacher needs one: give --teacher"):
        Train(distillation=0.5)(START, resources(DATA))


def test_a_teacher_of_other_classes_is_refused():
    other = dataclasses.replace(TEACHER, dataset=dataclasses.replace(TEACHER.dataset, classes=("x", "y")))
    with pytest.raises(CompressError, match=r"the teacher knows 2 classes \(x, y, \.\.\.\) and the student 3"):
        Train(distillation=0.5)(START, resources(DATA, teacher=other))


def test_early_stopping_on_images_that_were_learnt_is_refused():
    with pytest.raises(UsageError, match=r"early stopping was asked for \(patience 2\), but the weights have seen"):
        trained(checkpoint(DATA, "all"), patience=2)


def test_weights_that_have_seen_the_validation_images_are_not_judged_by_them():
    record = trained(checkpoint(DATA, "all")).history[-1]
    assert "validation_top1" not in record.figures
    assert "the weights have seen the validation images" in record.notes[1]


def test_data_of_another_shape_is_refused():
    with pytest.raises(CompressError, match="the images of tiny are 1x8x8, and the network user:everything"):
        Train()(START, resources(task(channels=1)))


class Enormous(Everything):
    """A network whose activations fit in no memory."""

    def forward(self, x):
        return super().forward(x) + torch.ones(2**50).sum()


def test_running_out_of_memory_says_the_batch_and_what_to_lower():
    user = UserNetwork(Enormous, USER.name, USER.digest)
    with pytest.raises(
        ResourceError, match=r"out of memory on cpu with a batch of 16 images.*Set --accumulate 2 .*--batch below 16"
    ):
        Train(**QUIET)(START, dataclasses.replace(resources(DATA), user=user))


def test_other_failures_are_not_taken_for_memory():
    class Broken(Everything):
        def forward(self, x):
            if self.training:
                raise RuntimeError("something else")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="something else"):
        Train(**QUIET)(START, dataclasses.replace(resources(DATA), user=UserNetwork(Broken, USER.name, USER.digest)))
