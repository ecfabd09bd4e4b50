import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from compress import checkpoint as files
from compress import networks
from compress.architecture import Architecture, Quantization
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.data.spec import DatasetSpec, Preprocessing
from compress.data.splits import LearningData
from compress.errors import CompressError, UsageError
from compress.macs import macs
from compress.pipeline import Resources
from compress.prune.step import Prune

SHAPE = (3, 32, 32)


def checkpoint(name="resnet20", source="compress", shape=SHAPE):
    architecture = Architecture(source, name, {"num_classes": 10}, shape)
    return Checkpoint(architecture, networks.create(architecture).state_dict())


class Noise:
    """Images without labels."""

    labelled = False

    def __init__(self, count, shape=SHAPE):
        self.images = torch.randint(
            0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        self.shown = []

    def __len__(self):
        return len(self.images)

    def batches(self, size, order=None):
        for part in np.split(order, range(size, len(order), size)):
            self.shown.append(len(part))
            yield self.images[part], torch.full((len(part),), -1)


def resources(split, **options):
    preprocessing = Preprocessing("rgb", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    spec = DatasetSpec("noise", tuple("abcdefghij"), SHAPE, preprocessing, "sha256:0")
    return Resources(LearningData(spec, None, None, split), **options)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "give exactly one target: macs, parameters or latency .*, or channel_ratio"),
        ({"macs": 0.5, "channel_ratio": 0.5}, "give exactly one target"),
        ({"macs": 0.0}, "greater than 0"),
        ({"macs": 1.0}, "less than 1"),
        ({"macs": float("nan")}, "finite number"),
        ({"channel_ratio": 1.0}, "less than 1"),
        ({"channel_ratio": 0.95}, "channel_ratio 0.95 is above `largest`"),
        ({"macs": 0.5, "round_to": 0}, "greater than or equal to 1"),
        ({"macs": 0.5, "largest": 1.0}, "less than 1"),
        ({"macs": 0.5, "criterion": "l3"}, "'l1', 'l2'"),
        ({"macs": 0.5, "images": 0}, "greater than or equal to 1"),
        ({"mac": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_fields_out_of_range_are_named(fields, words):
    with pytest.raises(ValidationError, match=words):
        Prune(**fields)


def test_declaring_a_step_imports_no_torch():
    code = "import sys, compress.prune.step; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_half_the_macs_go_and_the_rest_is_rebuilt_from_the_architecture_alone():
    dense = checkpoint()
    pruned = Prune(macs=0.5, recalibrate=False)(dense)
    assert macs(build(pruned), SHAPE) / macs(build(dense), SHAPE) == pytest.approx(0.5, abs=0.01)
    assert pruned.architecture.widths["layer3.2.conv1"] == (64, 32)
    assert pruned.architecture.widths["layer3.2.conv2"] == (32, 64)
    assert "linear" not in pruned.architecture.widths
    record = pruned.history[-1]
    assert record.notes[0] == "168 of 336 channels removed, from 9 of 9 groups; at most 90% of any one"
    assert {refusal.layer for refusal in record.refusals} >= {"conv1", "linear"}


def test_the_same_answers_come_back_in_a_fresh_process_that_never_imports_torch_pruning(tmp_path):
    pruned = Prune(macs=0.5, recalibrate=False)(checkpoint())
    files.save(pruned, tmp_path / "pruned.safetensors")
    with torch.no_grad():
        torch.save(build(pruned)(torch.linspace(-1, 1, 3072).view(1, *SHAPE)), tmp_path / "logits.pt")
    code = f"""
import sys, torch
from compress import checkpoint
from compress.build import build
network = build(checkpoint.load({str(tmp_path / "pruned.safetensors")!r}))
with torch.no_grad():
    logits = network(torch.linspace(-1, 1, 3072).view(1, 3, 32, 32))
same = torch.equal(logits, torch.load({str(tmp_path / "logits.pt")!r}, weights_only=True))
sys.exit(0 if same and "torch_pruning" not in sys.modules else 1)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_pruning_twice_composes():
    once = Prune(channel_ratio=0.25, round_to=4, recalibrate=False)(checkpoint())
    twice = Prune(channel_ratio=0.5, round_to=4, recalibrate=False)(once)
    assert once.architecture.widths["layer2.0.conv1"] == (16, 24)
    assert twice.architecture.widths["layer2.0.conv1"] == (16, 12)
    with torch.no_grad():
        assert build(twice)(torch.rand(2, *SHAPE)).isfinite().all()
    assert [record.step for record in twice.history] == ["prune", "prune"]
    assert twice.history[1].parent == once.fingerprint


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2_x0_5"])
def test_families_with_depthwise_and_shuffled_channels_reach_their_target(name):
    dense = checkpoint(name, "torchvision", (3, 64, 64))
    pruned = Prune(macs=0.6, recalibrate=False)(dense)
    share = macs(build(pruned), (3, 64, 64)) / macs(build(dense), (3, 64, 64))
    assert share == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("settings", [{}, {"criterion": "activation"}, {"reconstruct": True}])
def test_pruning_leaves_the_checkpoint_it_was_given_as_it_was(settings):
    given = checkpoint()
    before = {name: tensor.clone() for name, tensor in given.weights.items()}
    pruned = Prune(channel_ratio=0.5, images=16, **settings)(given, resources(Noise(16)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.weights.items())
    if "reconstruct" not in settings:
        assert not torch.equal(pruned.weights["bn1.running_mean"], before["bn1.running_mean"]), "recalibrated"


def test_channel_ratio_is_the_share_removed():
    pruned = Prune(channel_ratio=0.5, criterion="random", allocation="global", round_to=1, recalibrate=False)(
        checkpoint()
    )
    removed = int(pruned.history[-1].notes[0].split()[0])
    assert removed / 336 == pytest.approx(0.5, abs=0.01)


def test_a_channel_ratio_is_of_all_channels_also_where_some_groups_have_none_to_give():
    pruned = Prune(channel_ratio=0.5, round_to=16, recalibrate=False)(checkpoint())
    assert pruned.history[-1].notes[0].startswith("176 of 336 channels removed, from 6 of 9 groups")
    assert "layer1.0.conv1" not in pruned.architecture.widths, "16 channels have no smaller multiple"


@pytest.mark.parametrize(
    ("settings", "most", "remedy"),
    [
        ({"channel_ratio": 0.8, "round_to": 16}, "0.571", ": round_to 4 reaches it."),
        ({"channel_ratio": 0.9, "round_to": 16}, "0.571", ": round_to 1 with largest 0.91 reaches it."),
        ({"channel_ratio": 0.75, "largest": 0.76, "exclude": ("layer3",)}, "0.667", ": round_to 4 reaches it."),
    ],
)
def test_a_channel_ratio_out_of_reach_ends_with_the_nearest_and_what_would_reach_it(settings, most, remedy):
    with pytest.raises(CompressError) as caught:
        Prune(**settings, recalibrate=False)(checkpoint())
    assert caught.value.exit_code == 3
    assert f"a channel ratio of {settings['channel_ratio']:g} was asked for, and {most} is the most" in str(
        caught.value
    )
    assert remedy in str(caught.value)


def test_seeds_decide_chance_and_nothing_else_does():
    def pruned(seed):
        return Prune(channel_ratio=0.5, criterion="random", recalibrate=False)(checkpoint(), Resources(seed=seed))

    assert pruned(1).fingerprint == pruned(1).fingerprint != pruned(2).fingerprint


def test_recalibration_shows_the_images_asked_for_in_equal_batches_and_says_how_far_it_is():
    split, told = Noise(700), []
    step = Prune(macs=0.5, images=600)
    pruned = step(checkpoint(), resources(split, progress=lambda *news: told.append(news)))
    assert split.shown == [200, 200, 200]
    assert told[-1][:3] == ("prune", 600, 600)
    plain = Prune(macs=0.5, recalibrate=False)(checkpoint())
    changed = {name for name in plain.weights if not torch.equal(plain.weights[name], pruned.weights[name])}
    assert all("running_" in name or name.endswith("num_batches_tracked") for name in changed)
    assert "bn1.running_mean" in changed


def test_recalibration_without_images_says_how_to_give_them():
    with pytest.raises(UsageError, match="prune needs images: give --data NAME"):
        Prune(macs=0.5)(checkpoint())


def test_a_network_without_batch_norms_needs_no_images():
    pruned = Prune(macs=0.5)(checkpoint("squeezenet1_1", "torchvision", (3, 64, 64)))
    assert "no batch norm to recalibrate" in pruned.history[-1].notes


def test_a_target_out_of_reach_ends_with_what_would_reach_it():
    with pytest.raises(CompressError, match="round_to 8 reaches it"):
        Prune(macs=0.5, round_to=16, recalibrate=False)(checkpoint())


def test_what_is_said_to_reach_a_target_does():
    asked = {"macs": 0.58, "round_to": 16, "recalibrate": False}
    with pytest.raises(CompressError, match=r"round_to 8 reaches it; structure blocks without round_to reaches it"):
        Prune(**asked)(checkpoint())
    for settings in (asked | {"round_to": 8}, {"macs": 0.58, "structure": "blocks", "images": 32}):
        pruned = Prune(**settings)(checkpoint(), resources(Noise(32)))
        assert macs(build(pruned), SHAPE) / macs(build(checkpoint()), SHAPE) <= 0.59


def test_a_small_share_counts_as_reached_to_a_part_of_itself():
    with pytest.raises(CompressError, match=r"0\.066 of the MACs was asked for, and 0\.073 is the least"):
        Prune(macs=0.066, round_to=1, largest=0.95, recalibrate=False)(checkpoint())
    assert (
        Prune(macs=0.07, round_to=1, largest=0.95, recalibrate=False)(checkpoint())
        .history[-1]
        .notes[1]
        .startswith("0.073")
    )


def test_a_network_that_cannot_give_a_channel_says_why():
    with pytest.raises(CompressError, match="no channel of this network can be removed: conv1: conv1 was excluded"):
        Prune(macs=0.5, exclude=("conv1", "layer1", "layer2", "layer3"))(checkpoint())


def test_less_than_one_step_is_an_error():
    with pytest.raises(CompressError, match=r"nothing was removed: .* less than one step of 8 channels"):
        Prune(channel_ratio=0.01, recalibrate=False)(checkpoint())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"folded": ()}, "folding comes after pruning"),
        (
            {"folded": (), "quantization": Quantization("onnxruntime-cpu", "sha256:0", ())},
            "quantization comes last: prune and train the checkpoint from before it, then quantize again",
        ),
    ],
)
def test_pruning_in_the_wrong_order_names_the_one_that_works(change, words):
    dense = checkpoint()
    architecture = Architecture("compress", "resnet20", {"num_classes": 10}, SHAPE, **change)
    with pytest.raises(CompressError, match=words):
        Prune(macs=0.5)(Checkpoint(architecture, dense.weights))
