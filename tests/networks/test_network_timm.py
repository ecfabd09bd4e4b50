import subprocess
import sys

import pytest
import torch

from compress import networks
from compress.architecture import Architecture
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.errors import UsageError
from compress.fold.step import Fold
from compress.importing import import_checkpoint
from compress.macs import macs
from compress.prune.step import Prune

pytest.importorskip("timm", reason="the extra timm is not installed")
SHAPE = (3, 64, 64)


def checkpoint(name):
    """A network with random weights, and batch norms that are not all alike."""
    architecture = Architecture("timm", name, {"num_classes": 5}, SHAPE)
    network, chance = networks.create(architecture), torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2, generator=chance)
            module.running_var.uniform_(0.5, 1.5, generator=chance)
    return Checkpoint(architecture, network.state_dict())


def test_a_name_of_timm_is_taken_and_another_names_the_nearest():
    assert networks.resolve("timm:resnet10t") == ("timm", "resnet10t")
    with pytest.raises(UsageError, match="unknown timm network 'resnet10': did you mean"):
        networks.resolve("timm:resnet10")


@pytest.mark.parametrize(
    "name", ["hf_hub:timm/resnet10t.c3_in1k", "hf-hub:someone/something", "local-dir:/tmp", "resnet10t.c3_in1k"]
)
def test_a_checkpoint_cannot_have_timm_fetch_anything(name, offline):
    with pytest.raises(UsageError, match="unknown timm network"):
        networks.create(Architecture("timm", name, {"num_classes": 5}, SHAPE))


def test_without_timm_the_error_names_the_extra():
    code = """
import sys
sys.modules["timm"] = None
from compress import networks
from compress.errors import ResourceError
try:
    networks.resolve("timm:resnet10t")
except ResourceError as error:
    sys.exit("compress-cnn[timm]" not in str(error))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_grey_images_and_their_classes_are_taken():
    found = import_checkpoint(None, "timm:resnet10t", input_shape=(1, 64, 64))
    assert found.architecture.title == "timm:resnet10t"
    assert networks.outputs(build(found), (1, 64, 64)) == 1000


@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002"])
def test_networks_of_timm_are_pruned_and_folded(name):
    dense = checkpoint(name)
    pruned = Prune(macs=0.6, recalibrate=False)(dense)
    assert macs(build(pruned), SHAPE) / macs(build(dense), SHAPE) == pytest.approx(0.6, abs=0.02)
    folded = Fold()(pruned)
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = build(pruned)(images), build(folded)(images)
    # Folding is exact but for rounding; an activation that went with its batch norm is not.
    assert (after - before).abs().max() < 1e-4 * before.abs().max()
    assert not folded.history[-1].refusals
