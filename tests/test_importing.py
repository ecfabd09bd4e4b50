import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from compress import checkpoint as files
from compress import networks
from compress.data.load import load
from compress.data.normalise import normalise
from compress.data.spec import DatasetSpec, Preprocessing
from compress.errors import CompressError, UsageError
from compress.importing import import_checkpoint
from compress.networks import weights as plain

SPEC = DatasetSpec("grey", tuple("0123456789"), (1, 32, 32), Preprocessing("grey", (0.5,), (0.25,)), "sha256:0")
LARGE = DatasetSpec(
    "imagefolder:photos",
    tuple(map(str, range(1000))),
    (3, 224, 224),
    Preprocessing("rgb", (0.5,) * 3, (0.5,) * 3, 256, "bilinear", 224),
    "sha256:1",
)
NET = "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))\n"


def untrained():
    return import_checkpoint(None, "digits_cnn", SPEC, seed=3)


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "digits.pth"
    torch.save(dict(untrained().weights), path)
    return path


def test_importing_brings_the_weights_of_the_file(state):
    imported = import_checkpoint(state, "digits_cnn", SPEC)
    assert imported.architecture.title == "digits_cnn"
    assert imported.architecture.arguments == {"num_classes": 10}
    assert imported.architecture.input_shape == (1, 32, 32)
    assert (imported.dataset, imported.trained_on) == (SPEC, "all")
    assert imported.fingerprint == untrained().fingerprint
    assert not torch.equal(
        imported.weights["linear.weight"], import_checkpoint(None, "digits_cnn", SPEC, seed=4).weights["linear.weight"]
    )


def test_the_history_says_what_was_imported_and_nothing_of_the_folder(state):
    (record,) = import_checkpoint(state, "digits_cnn", SPEC, trained_on="train").history
    assert (record.step, record.parent, record.notes) == ("import", None, ())
    assert record.settings["weights"] == "digits.pth"
    assert record.settings["digest"].startswith("sha256:")
    assert record.settings["trained_on"] == "train"
    assert str(state.parent) not in str(record)


def test_random_weights_are_those_of_the_seed_and_say_so():
    first = untrained()
    assert first.trained_on == "train"
    assert "random" in first.history[0].notes[0]
    assert first.fingerprint == untrained().fingerprint
    assert first.fingerprint != import_checkpoint(None, "digits_cnn", SPEC, seed=4).fingerprint


def test_an_imported_checkpoint_is_the_same_after_saving(state, tmp_path):
    imported = import_checkpoint(state, "digits_cnn", SPEC)
    files.save(imported, tmp_path / "base.safetensors")
    again = files.load(tmp_path / "base.safetensors")
    assert (again.fingerprint, again.history, again.dataset) == (imported.fingerprint, imported.history, SPEC)


def test_without_data_the_input_shape_is_enough(state):
    imported = import_checkpoint(state, "digits_cnn", input_shape=(1, 32, 32))
    assert imported.dataset is None
    with pytest.raises(UsageError, match="nothing says what images the network reads"):
        import_checkpoint(state, "digits_cnn")
    with pytest.raises(UsageError, match=r"the input shape \(1, 28, 28\) is not that of grey"):
        import_checkpoint(state, "digits_cnn", SPEC, (1, 28, 28))


def test_weights_of_another_network_are_listed(state):
    with pytest.raises(CompressError, match=r"do not fit resnet20\. .* missing: .*layer1\.0\.conv1\.weight"):
        import_checkpoint(state, "resnet20", SPEC)


def test_data_with_other_classes_is_refused(state):
    with pytest.raises(
        CompressError, match=r"linear\.weight is float32 \(10, 64\) and not float32 \(3, 64\).*number of classes"
    ):
        import_checkpoint(state, "digits_cnn", dataclasses.replace(SPEC, classes=("a", "b", "c")))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    weights = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in untrained().weights.items()
    }
    weights["linear.bias"][3] = value
    torch.save(weights, tmp_path / "broken.pth")
    with pytest.raises(CompressError, match=r"broken\.pth holds NaN or infinity in linear\.bias"):
        import_checkpoint(tmp_path / "broken.pth", "digits_cnn", SPEC)


def test_a_users_network_is_imported_with_the_digest_of_its_file(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    name = f"{tmp_path / 'net.py'}:build"
    save_file({"1.weight": torch.randn(10, 1024), "1.bias": torch.zeros(10)}, tmp_path / "net.safetensors")
    imported = import_checkpoint(tmp_path / "net.safetensors", name, SPEC)
    assert (imported.architecture.source, imported.architecture.name, imported.architecture.arguments) == (
        "user",
        "build",
        {},
    )
    assert imported.architecture.code == networks.load_user(name).digest
    assert str(tmp_path) not in str(imported.architecture) + str(imported.history)
    with pytest.raises(CompressError, match="grey has 2 classes, and the network user:build answers for 10"):
        import_checkpoint(tmp_path / "net.safetensors", name, dataclasses.replace(SPEC, classes=("a", "b")))
    with pytest.raises(CompressError, match="cannot answer an image of 1x28x28"):
        import_checkpoint(tmp_path / "net.safetensors", name, input_shape=(1, 28, 28))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch's download cache, with random weights where torchvision would put the published ones."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def put(name, **options):
        weights = models.get_model_weights(name).DEFAULT
        path = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(models.get_model(name, weights=None, **options).state_dict(), path)
        return path

    return put


def test_published_weights_come_with_their_preprocessing(cache):
    cache("squeezenet1_1")
    imported = import_checkpoint("DEFAULT", "torchvision:squeezenet1_1")
    assert imported.architecture.input_shape == (3, 224, 224)
    assert imported.spec.preprocessing.resize == 256 and len(imported.spec.classes) == 1000
    assert imported.history[0].settings["weights"] == "squeezenet1_1-b8a52dc0.pth"
    with_data = import_checkpoint("DEFAULT", "torchvision:squeezenet1_1", LARGE)
    assert with_data.spec == dataclasses.replace(LARGE, preprocessing=imported.spec.preprocessing)


def test_data_taken_as_it_is_stays_so_under_published_weights(cache):
    cache("squeezenet1_1")
    spec = dataclasses.replace(
        LARGE, image_shape=(3, 64, 64), preprocessing=Preprocessing("rgb", (0.5,) * 3, (0.5,) * 3)
    )
    imported = import_checkpoint("DEFAULT", "torchvision:squeezenet1_1", spec)
    assert imported.architecture.input_shape == (3, 64, 64)
    assert imported.spec.preprocessing == Preprocessing("rgb", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_published_weights_with_auxiliary_heads_lose_them_and_keep_their_input(cache):
    cache("googlenet", init_weights=False)
    imported = import_checkpoint("DEFAULT", "torchvision:googlenet")
    assert imported.architecture.arguments == {"num_classes": 1000, "transform_input": True}
    assert not [name for name in imported.weights if name.startswith("aux")]


def test_a_pickle_in_the_download_cache_is_not_run(cache):
    torch.save(torch.nn.Linear(2, 2), cache("squeezenet1_1"))
    with pytest.raises(CompressError, match=r"reading it would run .*Linear"):
        import_checkpoint("DEFAULT", "torchvision:squeezenet1_1")


def test_only_torchvision_has_published_weights():
    with pytest.raises(UsageError, match="'DEFAULT' names published weights"):
        import_checkpoint("DEFAULT", "digits_cnn", SPEC)


def test_trained_weights_answer_as_their_author_says(cifar10, resnet20_weights):
    """91.73 % on all 10,000 test images; of 1,000, within three standard deviations (0.87 points each)."""
    data = load(f"npz:{cifar10}")
    imported = import_checkpoint(resnet20_weights, "resnet20", data.spec)
    network = networks.create(imported.architecture)
    plain.load(network, imported.weights)
    right = 0
    with torch.inference_mode():
        for images, labels in data.test.batches(250, np.arange(1000)):
            right += int((network(normalise(images, data.spec.preprocessing)).argmax(1) == labels).sum())
    assert abs(right / 10 - 91.73) < 2.6
