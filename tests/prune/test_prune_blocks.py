"""Removing residual blocks: which are found, which go, and that the file says it all."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from test_prune_step import SHAPE, Noise, checkpoint, resources
from torch import nn

from compress import checkpoint as files
from compress import parity
from compress.build import build, structure
from compress.errors import CompressError, UsageError
from compress.explain import explain
from compress.export import export, onnx_file
from compress.fold.step import Fold
from compress.layers import layers
from compress.macs import macs, parameters
from compress.prune.blocks import bypass
from compress.prune.narrow import twin
from compress.prune.residuals import find_blocks
from compress.prune.shorten import ranked
from compress.prune.step import Prune
from compress.prune.zeroing import hold
from compress.quantize.step import Quantize
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.torch import TorchSession

IMAGES = torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(1))
REMOVABLE = ("layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2")


def idle(*names):
    """A ResNet-20 in which some blocks' branches add exactly zero."""
    found = checkpoint()
    zeros = {
        f"{name}.bn2.{part}": torch.zeros_like(found.weights[f"{name}.bn2.{part}"])
        for name in names
        for part in ("weight", "bias")
    }
    return dataclasses.replace(found, weights={**found.weights, **zeros})


def answers(found):
    with torch.no_grad():
        return build(found)(IMAGES)


def shortened(found, **fields):
    return Prune(structure="blocks", **{"recalibrate": False, **fields})(found, resources(Noise(64)))


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("resnet18", "layer1.0"),
        ("regnet_y_400mf", "trunk_output.block4.block4-5"),
        ("mobilenet_v2", "features.3"),
        ("mnasnet0_5", "layers.8.1"),
        ("efficientnet_b0", "features.2.1"),
        ("convnext_tiny", "features.1.0"),
    ],
)
def test_blocks_of_every_residual_family_are_found_and_the_rest_still_answers(name, some):
    network = build(checkpoint(name, "torchvision", (3, 64, 64)))
    found, refusals = find_blocks(network, (3, 64, 64))
    assert some in found
    assert all("another shape" in refusal.reason for refusal in refusals)
    with torch.no_grad():
        assert bypass(twin(network), found)(torch.rand(2, 3, 64, 64)).shape == (2, 10)


class After(nn.Module):
    """A block with its activation after the sum, or none."""

    def __init__(self, activation):
        super().__init__()
        self.conv, self.activation = nn.Conv2d(4, 4, 3, padding=1), activation

    def forward(self, x):
        return self.activation(x + self.conv(x))


class Scaled(nn.Module):
    """A block whose shortcut is not what it is given."""

    def __init__(self):
        super().__init__()
        self.conv, self.shortcut = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.shortcut(x) + self.conv(x)


class Named(nn.Module):
    """A network that asks one of its blocks for a weight."""

    def __init__(self):
        super().__init__()
        self.block = After(nn.Identity())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.block(x).mean((2, 3)) + self.block.conv.bias)


def test_a_block_goes_only_where_the_identity_does_what_is_left_of_it():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        After(nn.ReLU()),
        After(nn.ReLU()),
        After(nn.Identity()),
        After(nn.Tanh()),
        Scaled(),
        nn.Flatten(),
    )
    found, refusals = find_blocks(network.eval(), (3, 8, 8))
    assert found == ("2", "3"), "the first ReLU still cuts what is below zero, the second has nothing left to cut"
    assert {refusal.layer: refusal.reason for refusal in refusals} == {
        "1": "without its branch it still changes what it is given",
        "4": "without its branch it still changes what it is given",
        "5": "what it is given does not reach the sum unchanged",
    }


def test_a_block_stays_with_what_is_excluded_in_it():
    found, refusals = find_blocks(build(checkpoint()), SHAPE, ("layer1.0.conv1", "layer2"))
    assert found == ("layer1.1", "layer1.2", "layer3.1", "layer3.2")
    reasons = {refusal.layer: refusal.reason for refusal in refusals}
    assert reasons["layer1.0"] == "layer1.0.conv1 in it was excluded"
    assert reasons["layer2.1"] == "it was excluded"


def test_a_block_the_network_looks_into_is_refused():
    found, (refusal, *_) = find_blocks(Named().eval(), (4, 8, 8))
    assert found == ()
    assert (refusal.layer, refusal.reason.partition(":")[0]) == ("block", "the forward pass fails without it")


def test_a_block_under_two_names_can_go_from_either_place():
    block = After(nn.Identity())
    network = nn.Sequential(nn.Conv2d(3, 4, 1), block, block).eval()
    assert find_blocks(network, (3, 8, 8))[0] == ("1", "2")
    once = bypass(twin(network), ["2"])
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(once(x), block(network[0](x)))


def test_an_addition_between_modules_is_refused_by_what_makes_it():
    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return (x + self.branch(x)).mean((2, 3))

    _, (refusal,) = find_blocks(Outside().eval(), (4, 8, 8))
    assert (refusal.layer, refusal.reason) == ("the network itself", "it adds outside of any module")


def test_a_block_that_adds_nothing_goes_first_and_no_logit_changes():
    dense = idle("layer2.1", "layer3.2")
    shorter = shortened(dense, macs=0.77)
    assert shorter.architecture.removed == ("layer2.1", "layer3.2")
    assert torch.equal(answers(shorter), answers(dense))
    assert not torch.equal(answers(shortened(checkpoint(), macs=0.77)), answers(checkpoint()))


def test_each_time_the_block_goes_without_which_the_logits_are_nearest():
    network = build(checkpoint())
    with torch.no_grad():
        whole = network(IMAGES)

        def distance(names):
            return float((bypass(twin(network), names)(IMAGES) - whole).norm() / whole.norm())

        gone = []
        for name in list(ranked(network, REMOVABLE, [IMAGES[:20], IMAGES[20:]]))[:3]:
            others = [other for other in REMOVABLE if other not in gone]
            assert name == min(others, key=lambda other: distance([*gone, other]))
            gone.append(name)


@pytest.mark.parametrize(("target", "count"), [("macs", macs), ("parameters", lambda network, _: parameters(network))])
def test_the_share_kept_is_reached_and_a_block_less_would_not_reach_it(target, count):
    dense = checkpoint()
    shorter = shortened(dense, **{target: 0.6})

    def share(removed):
        architecture = dataclasses.replace(dense.architecture, removed=removed)
        return count(structure(architecture), SHAPE) / count(build(dense), SHAPE)

    removed = shorter.architecture.removed
    assert share(removed) == pytest.approx(count(build(shorter), SHAPE) / count(build(dense), SHAPE))
    assert share(removed) <= 0.61 < share(removed[:-1])
    assert f"{share(removed):.3f} of the" in shorter.history[-1].notes[1]


def test_a_shortened_network_comes_back_bit_for_bit_in_a_fresh_process(tmp_path):
    shorter = shortened(checkpoint(), macs=0.6, recalibrate=True)
    files.save(shorter, tmp_path / "shorter.safetensors")
    torch.save(answers(shorter), tmp_path / "logits.pt")
    torch.save(IMAGES, tmp_path / "images.pt")
    code = f"""
import sys, torch
from compress import checkpoint
from compress.build import build, structure
torch.set_num_threads(1)
network = build(checkpoint.load({str(tmp_path / "shorter.safetensors")!r}))
with torch.no_grad():
    logits = network(torch.load({str(tmp_path / "images.pt")!r}, weights_only=True))
sys.exit(not torch.equal(logits, torch.load({str(tmp_path / "logits.pt")!r}, weights_only=True)))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    shown = explain(tmp_path / "shorter.safetensors")
    assert shown["removed blocks"] == ", ".join(shorter.architecture.removed)
    assert not [layer.name for layer in layers(shorter) if layer.name.startswith(shorter.architecture.removed)]


def test_only_a_checkpoint_without_blocks_needs_the_newer_format(tmp_path):
    files.save(checkpoint(), tmp_path / "dense.safetensors")
    files.save(shortened(checkpoint(), macs=0.9), tmp_path / "shorter.safetensors")
    assert b'"format": 1' in (tmp_path / "dense.safetensors").read_bytes().replace(b"\\", b"")
    assert b'"format": 2' in (tmp_path / "shorter.safetensors").read_bytes().replace(b"\\", b"")
    assert b"removed" not in (tmp_path / "dense.safetensors").read_bytes(), "and keeps the fingerprint it had"


def test_a_removed_block_the_network_does_not_have_is_named():
    found = checkpoint()
    for name in ("layer1.9", "", "layer3.1.conv9"):
        edited = dataclasses.replace(found, architecture=dataclasses.replace(found.architecture, removed=(name,)))
        with pytest.raises(
            CompressError, match=r"this network does not have it.* belongs to another network, or was edited"
        ):
            build(edited)


def test_blocks_channels_zeros_folding_int8_and_onnx_go_together(tmp_path):
    given = resources(Noise(64))
    narrow = Prune(channel_ratio=0.5, images=64)(checkpoint(), given)
    network = build(narrow)
    hold(
        network,
        {
            f"{name}.conv1": torch.ones(network.get_submodule(f"{name}.conv1").weight.shape, dtype=bool).tril()
            for name in REMOVABLE[:2]
        },
    )
    masked = dataclasses.replace(narrow.architecture, masked=("layer1.0.conv1", "layer1.1.conv1"))
    narrow = dataclasses.replace(narrow, architecture=masked, weights=network.state_dict())

    once = Prune(structure="blocks", macs=0.9, images=64, exclude=("layer1.1",))(narrow, given)
    shorter = Prune(structure="blocks", macs=0.7, images=64)(once, given)
    gone, architecture = shorter.architecture.removed, shorter.architecture
    assert gone[: len(once.architecture.removed)] == once.architecture.removed != gone
    assert not [name for name in (*architecture.widths, *architecture.masked) if name.startswith(gone)]
    again = Prune(channel_ratio=0.25, round_to=4, images=64)(shorter, given)

    integer = Quantize(images=32)(Fold()(again, given), given)
    for name, found in (("float", Fold()(again, given)), ("integer", integer)):
        export(found, tmp_path / f"{name}.onnx")
        session = OnnxSession(onnx_file.read(tmp_path / f"{name}.onnx"), optimise=name == "float", what=name)
        kind = "exact" if name == "float" else "integer"
        parity.require(parity.compare(name, TorchSession(build(found), SHAPE), session, IMAGES.numpy(), kind))


def test_blocks_recalibrated_have_other_statistics_and_the_same_weights():
    plain, measured = (shortened(checkpoint(), macs=0.7, recalibrate=each) for each in (False, True))
    changed = {name for name in plain.weights if not torch.equal(plain.weights[name], measured.weights[name])}
    assert changed
    assert all("running_" in name or name.endswith("num_batches_tracked") for name in changed)


def test_a_block_goes_also_where_nearly_all_is_to_stay():
    shorter = shortened(checkpoint(), macs=0.995)
    assert len(shorter.architecture.removed) == 1


def test_a_share_out_of_reach_ends_with_the_nearest():
    with pytest.raises(
        CompressError,
        match=r"0\.1 of the MACs was asked for, and 0\.\d+ is the least .* all 7 blocks .*ask for 0\.\d\d",
    ) as caught:
        shortened(checkpoint(), macs=0.1)
    assert caught.value.exit_code == 3


def test_a_network_without_blocks_says_so():
    with pytest.raises(CompressError, match="no residual block of this network can be removed: it adds nothing"):
        shortened(checkpoint("squeezenet1_1", "torchvision", (3, 64, 64)), macs=0.5)
    with pytest.raises(CompressError, match=r"no residual block .*layer\d\.\d: it was excluded"):
        shortened(checkpoint(), macs=0.5, exclude=("layer1", "layer2", "layer3"))
    with pytest.raises(CompressError, match=r"least there is without the one block that can go"):
        shortened(checkpoint(), macs=0.5, exclude=("layer1", "layer2", "layer3.1"))
    with pytest.raises(UsageError, match="unknown module 'layer9'"):
        shortened(checkpoint(), macs=0.5, exclude=("layer9",))


def test_ranking_blocks_needs_images():
    with pytest.raises(UsageError, match="prune needs images: give --data NAME"):
        Prune(structure="blocks", macs=0.7, recalibrate=False)(checkpoint())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"channel_ratio": 0.5}, "channel_ratio is about channels, and blocks go whole"),
        ({"macs": 0.5, "criterion": "l1"}, "criterion is about channels"),
        ({"macs": 0.5, "allocation": "global"}, "allocation is about channels"),
        ({"macs": 0.5, "round_to": 16}, "round_to is about channels"),
        ({"macs": 0.5, "largest": 0.5}, "largest is about channels"),
        ({"macs": 0.5, "target": "tensorrt"}, "target gives the multiple of channels"),
    ],
)
def test_settings_of_channels_are_refused_for_blocks(fields, words):
    with pytest.raises(ValidationError, match=words):
        Prune(structure="blocks", **fields)


def test_a_target_channels_cannot_reach_points_to_blocks():
    with pytest.raises(
        CompressError,
        match=r"0\.600 is the least .*: round_to 8 reaches it; structure blocks without round_to reaches it",
    ):
        Prune(macs=0.5, round_to=16, recalibrate=False)(checkpoint())
