import subprocess
import sys

import pytest
import torch
from torch import nn

from compress import networks
from compress.architecture import Architecture
from compress.errors import CompressError, UsageError
from compress.networks.own import NETWORKS


def own(name, channels=3, num_classes=10, **other):
    return Architecture("compress", name, {"num_classes": num_classes, **other}, (channels, 32, 32))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels, num_classes", [(3, 10), (1, 7)])
def test_every_network_of_ours_resolves_and_answers_logits(name, channels, num_classes):
    assert networks.resolve(name) == ("compress", name)
    network = networks.create(own(name, channels, num_classes))
    assert not network.training
    assert networks.outputs(network, (channels, 32, 32)) == num_classes


@pytest.mark.parametrize("name", ["resnet20", "digits_cnn"])
def test_creating_a_network_leaves_the_random_state_alone_and_its_weights_are_those_of_the_seed(name):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = networks.create(own(name)).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = networks.create(own(name)).state_dict(), networks.create(own(name), seed=1).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_an_unknown_network_names_the_nearest_and_the_other_sources():
    with pytest.raises(UsageError, match=r"unknown network 'resnet21': did you mean .*resnet20.*torchvision:NAME"):
        networks.resolve("resnet21")


def test_a_misspelt_network_is_refused_without_importing_torch():
    code = (
        "import sys; from compress import networks\n"
        "try: networks.resolve('resnet21')\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print('torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["UsageError", "False", "False"]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"num_classes": 1}, {"num_classes": 10**12}, {"num_classes": "10"}, {"num_classes": 10, "weights": "DEFAULT"}],
)
@pytest.mark.parametrize("source, name", [("compress", "resnet20"), ("torchvision", "alexnet")])
def test_arguments_that_someone_edited_are_refused(source, name, arguments):
    with pytest.raises(CompressError, match="the arguments of"):
        networks.create(Architecture(source, name, arguments, (3, 32, 32)))


def test_a_name_that_someone_edited_is_refused():
    with pytest.raises(UsageError, match="unknown network"):
        networks.create(own("os:system"))


def test_an_image_too_small_for_the_network_is_refused():
    network = networks.create(Architecture("torchvision", "alexnet", {"num_classes": 10}, (3, 224, 224)))
    with pytest.raises(CompressError, match="cannot answer an image of 3x8x8"):
        networks.outputs(network, (3, 8, 8))


@pytest.mark.parametrize(
    "network, found", [(nn.Identity(), r"a tensor of shape \(1, 3, 8, 8\)"), (lambda x: [x], "a list")]
)
def test_a_network_that_answers_no_logits_is_refused(network, found):
    with pytest.raises(CompressError, match=f"with {found}, not with logits"):
        networks.outputs(network, (3, 8, 8))
