import dataclasses
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from compress.architecture import Architecture
from compress.data.load import DATASETS, load, load_for
from compress.errors import CompressError, ResourceError, UsageError


def all_of(split):
    images, labels = zip(*split.batches(500), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_the_digits_are_those_of_scikit_learn_enlarged(digits):
    learning = digits.learning
    images, labels = map(
        torch.cat, zip(*(all_of(split) for split in (learning.train, learning.validation, digits.test)), strict=True)
    )
    small, expected_labels = load_digits(return_X_y=True)
    assert torch.equal(labels.bincount(), torch.tensor(np.bincount(expected_labels)))
    large = F.interpolate(torch.tensor(small * 255 / 16).view(-1, 1, 8, 8), (32, 32), mode="bilinear")
    assert images.shape == (1797, 1, 32, 32)

    # Both are sorted by their sum, a key that survives the new order; Pillow rounds before, between and after its
    # two passes, at most half a level each, so a whole image is at most 1.5 levels a pixel away.
    sums = images.double().sum((1, 2, 3)).sort().values, large.sum((1, 2, 3)).sort().values
    assert (sums[0] - sums[1]).abs().max() <= 1.5 * 32 * 32
    assert not (sums[0] * 1.05 - sums[1]).abs().max() <= 1.5 * 32 * 32


def test_the_test_digits_are_the_same_for_every_seed_and_hold_every_class_alike(digits):
    other = load("digits", seed=7)
    assert torch.equal(all_of(digits.test)[0], all_of(other.test)[0])
    assert len(digits.test) == 360
    assert set(all_of(digits.test)[1].bincount().tolist()) <= {35, 36, 37}
    assert dataclasses.replace(digits.spec, split_seed=7) == other.spec
    assert not torch.equal(all_of(digits.learning.validation)[0], all_of(other.learning.validation)[0])


def test_no_digit_is_in_two_splits(digits):
    """Two of the 1,797 originals could be equal; none are."""
    parts = [
        {image.numpy().tobytes() for image in all_of(split)[0]}
        for split in (digits.learning.train, digits.learning.validation, digits.test)
    ]
    assert [len(part) for part in parts] == [1293, 144, 360]
    assert len(set.union(*parts)) == 1797


def test_the_digits_are_the_same_bytes_on_every_machine(digits):
    assert digits.spec.digest == "sha256:f6930c38ffa6e6f89b6cad0b076b794ab9781dc34abfdff60eb2ea1a6cf05543"


def test_an_unknown_name_lists_the_nearest_and_all():
    with pytest.raises(UsageError, match=r"unknown data 'digit': did you mean digits\?.*imagefolder:PATH, npz:PATH"):
        load("digit")


@pytest.mark.parametrize(
    "name, said",
    [
        ("npz", "write npz:PATH"),
        ("npz:", "write npz:PATH"),
        ("imagefolder", "write imagefolder:PATH"),
        ("digits:x", "digits takes no path"),
        ("digits:", "digits takes no path"),
    ],
)
def test_a_path_too_many_or_too_few_is_refused(name, said):
    with pytest.raises(UsageError, match=said):
        load(name)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_cannot_be_one_is_refused(seed):
    with pytest.raises(UsageError, match=f"the seed {seed} is not between 0 and 4294967295"):
        load("digits", seed=seed)


NETWORK = Architecture("compress", "digits_cnn", {"num_classes": 10}, (1, 32, 32))


def test_data_for_a_network_is_shown_and_cut_as_the_network_was_made_for(digits):
    preprocessing = dataclasses.replace(digits.spec.preprocessing, mean=(0.1,))
    other = dataclasses.replace(digits.spec, preprocessing=preprocessing, split_seed=3)
    found = load_for(NETWORK, other, "digits")
    assert found.spec == other
    assert torch.equal(all_of(found.learning.validation)[0], all_of(load("digits", seed=3).learning.validation)[0])
    assert load_for(NETWORK, None, "digits").spec == digits.spec


def test_data_of_another_size_than_the_network_takes_is_refused():
    with pytest.raises(
        CompressError, match=r"the images of digits are 1x32x32, and the network .* was made for 3x32x32"
    ):
        load_for(dataclasses.replace(NETWORK, input_shape=(3, 32, 32)), None, "digits")


DOWNLOADED = sorted(set(DATASETS) - {"digits", "npz", "imagefolder"})


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_download_that_fails_says_what_to_do(name, tmp_path, offline):
    with pytest.raises(
        ResourceError, match=f"{name} is not in {tmp_path}, .* cannot be downloaded: .*refused.* Check the connection"
    ):
        load(name, folder=tmp_path)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(extent.to_bytes(4, "big") for extent in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def fashion(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        write_idx(raw / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


def test_files_that_are_there_are_read_and_not_downloaded(fashion, offline):
    data = load("fashion-mnist", folder=fashion)
    assert data.spec.image_shape == (1, 28, 28)
    assert data.spec.classes[0] == "T-shirt/top"
    assert (len(data.learning.train) + len(data.learning.validation), len(data.test)) == (60, 20)


def test_damaged_files_are_refused(fashion, offline):
    labels = fashion / "FashionMNIST/raw/t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-5])
    with pytest.raises(ResourceError, match=r"fashion-mnist is not in .*, or is damaged there.* delete damaged files"):
        load("fashion-mnist", folder=fashion)


def test_files_in_cifars_place_that_are_not_cifars_are_never_unpickled(tmp_path, offline):
    class Opens:
        def __reduce__(self):
            return (tmp_path / "ran").mkdir, ()

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Opens()))
    with pytest.raises(ResourceError, match="cannot be downloaded"):
        load("cifar10", folder=tmp_path)
    assert not (tmp_path / "ran").exists()
