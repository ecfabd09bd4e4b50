import re

import pytest
import torch
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

from compress import networks
from compress.architecture import Architecture
from compress.data.spec import DatasetSpec, Preprocessing
from compress.errors import CompressError, ResourceError, UsageError
from compress.networks import torchvision, weights


def architecture(name, size=64, **arguments):
    return Architecture("torchvision", name, {"num_classes": 5, **arguments}, (3, size, size))


def test_every_name_of_torchvision_is_taken_or_refused_with_a_reason():
    taken, refused = set(), set()
    for name in models.list_models():
        try:
            assert networks.resolve(f"torchvision:{name}") == ("torchvision", name)
            taken.add(name)
        except CompressError as error:
            assert name in str(error) and "does not classify images: it" in str(error)
            refused.add(name)
    assert taken == set(models.list_models(module=models))
    assert refused >= {"fcn_resnet50", "ssd300_vgg16", "r3d_18", "raft_small", "quantized_resnet18"}


def test_an_unknown_torchvision_name_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean resnet50"):
        networks.resolve("torchvision:resnet5")


@pytest.mark.parametrize(
    "name", ["resnet18", "mnasnet0_5", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "googlenet"]
)
def test_weights_of_a_network_go_back_into_it(name):
    network = networks.create(architecture(name), seed=1)
    state = weights.match(network.state_dict(), network, name)
    other = networks.create(architecture(name), seed=2)
    weights.load(other, state)
    with torch.no_grad():
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert torch.equal(network(images), other(images))


def test_auxiliary_heads_are_left_out():
    network = networks.create(architecture("googlenet"))
    assert not [name for name in network.state_dict() if name.startswith("aux")]
    with torch.no_grad():
        assert network.train()(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_googlenet_takes_its_input_as_published_only_when_told():
    assert networks.create(architecture("googlenet", transform_input=True)).transform_input
    assert not networks.create(architecture("googlenet")).transform_input


def test_grey_images_are_refused_by_name():
    with pytest.raises(CompressError, match="torchvision:alexnet reads images of 3 colours, and these have 1"):
        networks.create(Architecture("torchvision", "alexnet", {"num_classes": 5}, (1, 64, 64)))


def test_names_of_older_densenets_are_brought_up_to_date():
    new = models.densenet121(num_classes=5).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor for name, tensor in new.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert set(torchvision.modernise("densenet121", old)) == set(new)


def test_names_of_older_vision_transformers_are_brought_up_to_date():
    new = VisionTransformer(32, 16, 1, 2, 16, 32, num_classes=5).state_dict()
    old = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for name, tensor in new.items()
    }
    assert set(old) != set(new)
    assert set(torchvision.modernise("vit_b_16", old)) == set(new)


def test_published_weights_bring_their_own_preprocessing():
    assert torchvision.described(torchvision.find("resnet50", "DEFAULT")) == DatasetSpec(
        "imagenet",
        tuple(models.ResNet50_Weights.IMAGENET1K_V2.meta["categories"]),
        (3, 224, 224),
        Preprocessing("rgb", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=232, crop=224),
        digest="",
    )


def test_unknown_published_weights_name_those_there_are():
    with pytest.raises(UsageError, match="There are: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2"):
        torchvision.find("resnet50", "IMAGENET")


def test_every_published_file_is_described_and_recognised_by_its_digest():
    for name in models.list_models(module=models):
        for member in models.get_model_weights(name):
            if member.meta["categories"]:
                start = re.search(r"-([0-9a-f]{8,10})\.pth$", member.url)[1]
                assert torchvision.recognise(name, f"sha256:{start:0<64}") is member
                assert torchvision.described(member).classes == tuple(member.meta["categories"])
        assert torchvision.recognise(name, "sha256:" + "0" * 64) is None


def test_published_weights_that_do_not_classify_are_not_offered():
    with pytest.raises(UsageError, match=r"There are: DEFAULT, IMAGENET1K_V1\."):
        torchvision.find("vgg16", "IMAGENET1K_FEATURES")


def test_a_download_that_fails_says_what_to_fetch(monkeypatch, tmp_path, offline):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ResourceError, match=r"cannot download https://.*/squeezenet1_1-b8a52dc0\.pth.*another machine"):
        torchvision.download(torchvision.find("squeezenet1_1", "DEFAULT"))
