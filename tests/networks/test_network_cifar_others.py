import pytest
import torch
from torch import nn

from compress import networks
from compress.architecture import Architecture
from compress.macs import macs, parameters


def create(name, channels=3):
    return networks.create(Architecture("compress", name, {"num_classes": 10}, (channels, 32, 32)))


@pytest.mark.parametrize(
    "name, millions, macs_millions",
    [("mobilenetv2", 2.24, 88), ("mobilenetv2_half", 0.70, 28), ("vgg16_bn", 14.73, 313)],
)
def test_they_have_the_size_they_say(name, millions, macs_millions):
    network = create(name)
    assert round(parameters(network) / 1e6, 2) == millions
    assert round(macs(network, (3, 32, 32)) / 1e6) == macs_millions


@pytest.mark.parametrize("name, side", [("mobilenetv2_half", 4), ("vgg16_bn", 1)])
def test_an_image_of_32_pixels_ends_as_it_is_usual_for_cifar(name, side):
    with torch.no_grad():
        assert create(name).features(torch.zeros(1, 3, 32, 32)).shape[2:] == (side, side)


def test_the_mobilenet_has_the_blocks_of_the_paper():
    """Table 2: 17 bottlenecks, of which those with a stride or another width have no shortcut."""
    blocks = [module for module in create("mobilenetv2").modules() if type(module).__name__ == "InvertedResidual"]
    assert len(blocks) == 17
    assert sum(block.use_res_connect for block in blocks) == 10


def test_the_vgg_is_thirteen_convolutions_and_one_linear_layer():
    kinds = [type(module) for module in create("vgg16_bn").modules()]
    assert (kinds.count(nn.Conv2d), kinds.count(nn.BatchNorm2d), kinds.count(nn.Linear)) == (13, 13, 1)
