import dataclasses

import numpy as np
import pytest
import torch

from compress.data.load import load
from compress.data.spec import Preprocessing
from compress.errors import CompressError


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (100, 6, 6, 3), dtype=np.uint8),
        "train_labels": np.arange(100) % 5,
        "test_images": rng.integers(0, 256, (20, 6, 6, 3), dtype=np.uint8),
        "test_labels": np.arange(20) % 5,
        "class_names": np.array(list("abcde")),
    }


@pytest.fixture
def read(tmp_path):
    def read(arrays, **options):
        np.savez(tmp_path / "it.npz", **arrays)
        return load(f"npz:{tmp_path / 'it.npz'}", **options)

    return read


def all_of(split, size=7):
    images, labels = zip(*split.batches(size), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_the_splits_hold_the_arrays(read, arrays):
    data = read(arrays)
    assert data.spec.name == "npz:it.npz"
    assert data.spec.classes == tuple("abcde")
    assert data.spec.image_shape == (3, 6, 6)
    images, labels = all_of(data.test)
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert np.array_equal(images.permute(0, 2, 3, 1), arrays["test_images"])
    assert np.array_equal(labels, arrays["test_labels"])
    learned = {
        image.numpy().tobytes() for part in (data.learning.train, data.learning.validation) for image in all_of(part)[0]
    }
    assert learned == {np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes() for image in arrays["train_images"]}
    assert (len(data.learning.train), len(data.learning.validation)) == (90, 10)


def test_calibration_is_train_in_another_order(read, arrays):
    learning = read(arrays).learning
    train, calibration = (
        {image.numpy().tobytes() for image in all_of(part)[0]} for part in (learning.train, learning.calibration)
    )
    assert train == calibration and len(train) == 90
    assert not torch.equal(all_of(learning.train)[0], all_of(learning.calibration)[0])


def test_batches_come_in_the_order_asked_for(read, arrays):
    test = read(arrays).test
    order = np.array([5, 3, 3, 19, 0])
    images, labels = map(torch.cat, zip(*test.batches(2, order), strict=True))
    assert np.array_equal(labels, arrays["test_labels"][order])
    assert np.array_equal(images.permute(0, 2, 3, 1), arrays["test_images"][order])
    assert [len(labels) for _, labels in test.batches(2, order)] == [2, 2, 1]


def test_the_seed_moves_validation_and_never_the_test(read, arrays):
    first, other = read(arrays, seed=0), read(arrays, seed=1)
    assert dataclasses.replace(first.spec, split_seed=1) == other.spec
    assert torch.equal(all_of(first.test)[0], all_of(other.test)[0])
    assert not torch.equal(all_of(first.learning.validation)[0], all_of(other.learning.validation)[0])


def test_one_changed_pixel_or_label_changes_the_digest(read, arrays):
    digests = {read(arrays).spec.digest}
    for key in ("train_images", "test_images", "train_labels", "test_labels"):
        arrays[key] = arrays[key].copy()
        arrays[key].flat[0] = 1
        digests.add(read(arrays).spec.digest)
    assert len(digests) == 5


def test_grey_images_need_no_channel_axis_and_no_class_names(read, arrays):
    del arrays["class_names"]
    with_axis = arrays | {key: arrays[key][..., :1] for key in ("train_images", "test_images")}
    without = arrays | {key: arrays[key][..., 0] for key in ("train_images", "test_images")}
    assert read(with_axis).spec == read(without).spec
    assert read(without).spec.image_shape == (1, 6, 6)
    assert read(without).spec.classes == tuple("01234")


def test_the_preprocessing_can_be_given(read, arrays):
    own = Preprocessing("rgb", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert read(arrays, preprocessing=own).spec.preprocessing == own
    assert read(arrays).spec.preprocessing == Preprocessing("rgb", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    "preprocessing, said",
    [
        (Preprocessing("grey", (0.5,), (0.25,)), "have 3 channels, and the preprocessing is for 1"),
        (
            Preprocessing("rgb", (0.5,) * 3, (0.25,) * 3, resize=8, crop=7),
            "6x6 and are used as they are, and the preprocessing asks for 7",
        ),
    ],
)
def test_a_preprocessing_for_other_images_is_refused(read, arrays, preprocessing, said):
    with pytest.raises(CompressError, match=said):
        read(arrays, preprocessing=preprocessing)


nan = np.full((100, 6, 6, 3), np.nan)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"train_images": nan}, "train_images: the images are float64 and hold NaN or infinity, not uint8"),
        ({"test_images": np.zeros((20, 6, 6, 3), np.float32)}, "test_images: the images are float32, not uint8"),
        (
            {"train_images": np.zeros((100, 6, 6, 3), np.uint8)},
            "every image looked at in the training part .* is a single colour",
        ),
        (
            {"test_images": np.full((20, 6, 6, 3), 9, np.uint8)},
            "every image looked at in the test part .* is a single colour",
        ),
        ({"train_images": np.zeros((100, 3, 6, 6), np.uint8)}, r"has the shape \(100, 3, 6, 6\)"),
        ({"test_images": np.zeros((0, 6, 6, 3), np.uint8)}, "no empty one"),
        ({"test_images": np.ones((20, 5, 6, 3), np.uint8)}, "training images are 6x6x3 and test images 5x6x3"),
        (
            {"train_labels": np.arange(99) % 5},
            r"train_labels is int64 \(99,\). Give one integer for each of the 100 images",
        ),
        ({"train_labels": np.full(100, 0.5)}, "train_labels is float64"),
        ({"train_labels": np.arange(100)}, r"the training part .* has the label 5 \(95 labels"),
        ({"train_labels": np.full(100, 10**12), "class_names": None}, "has the label 1000000000000"),
        ({"train_labels": np.full(100, -1), "class_names": None}, "fewer than two classes: none"),
        ({"test_labels": np.zeros(20, int)}, "the test part .* has no image of class 'b'"),
        ({"class_names": np.array(["a", None])}, "Write it with numpy.savez, without objects"),
    ],
)
def test_arrays_that_cannot_be_right_are_refused(read, arrays, change, said):
    with pytest.raises(CompressError, match=said):
        read({key: array for key, array in (arrays | change).items() if array is not None})


def test_a_missing_array_names_the_nearest(read, arrays):
    arrays["train_image"] = arrays.pop("train_images")
    with pytest.raises(
        CompressError, match=r"has no array 'train_images' \(but 'train_image'\)\. It needs train_images, "
    ):
        read(arrays)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CompressError, match=r"cannot read .*none\.npz: No such file"):
        load(f"npz:{tmp_path}/none.npz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "it.npz").write_bytes(content)
    with pytest.raises(CompressError, match=r"it\.npz is not a \.npz of plain arrays"):
        load(f"npz:{tmp_path}/it.npz")


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "it.npy", np.arange(3))
    with pytest.raises(CompressError, match=r"is not a \.npz of plain arrays"):
        load(f"npz:{tmp_path}/it.npy")


def test_cifar10_is_read_as_it_is(cifar10):
    data = load(f"npz:{cifar10}")
    assert (len(data.learning.train), len(data.learning.validation), len(data.test)) == (45000, 5000, 10000)
    assert data.spec.classes[:3] == ("airplane", "automobile", "bird")
    labels = torch.cat([labels for _, labels in data.learning.validation.batches(1000)])
    assert labels.bincount().tolist() == [500] * 10
