import itertools
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms._presets import ImageClassification

from compress.data.folder import FolderSplit, images_below
from compress.data.load import load
from compress.data.normalise import normalise
from compress.data.spec import Preprocessing
from compress.errors import CompressError


def write(path, size=(8, 8), mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def fill(folder, parts=("train", "test"), counts=20, **options):
    seeds = itertools.count()
    for part in parts:
        for number in range(counts):
            for name in ("cat", "dog"):
                write(folder / part / name / f"{number:02d}.png", seed=next(seeds), **options)
    return f"imagefolder:{folder}"


def labels_of(split):
    return torch.cat([labels for _, labels in split.batches(8)])


def test_folders_become_classes_and_four_splits(tmp_path):
    data = load(fill(tmp_path / "pets"))
    assert data.spec.name == "imagefolder:pets"
    assert data.spec.classes == ("cat", "dog")
    assert data.spec.image_shape == (3, 8, 8)
    assert (len(data.learning.train), len(data.learning.validation), len(data.test)) == (36, 4, 40)
    assert labels_of(data.learning.validation).bincount().tolist() == [2, 2]
    assert set(data.learning.train.files) == set(data.learning.calibration.files)
    assert not set(data.learning.train.files) & set(data.learning.validation.files)
    assert all(
        f"/{data.spec.classes[label]}/" in str(path)
        for path, label in zip(data.test.files, data.test.labels, strict=True)
    )


def test_images_are_decoded_as_they_were_written_in_any_order(tmp_path):
    data = load(fill(tmp_path))
    order = np.array([39, 0, 7])
    ((images, labels),) = data.test.batches(5, order)
    expected = [np.asarray(Image.open(data.test.files[position])).transpose(2, 0, 1) for position in order]
    assert np.array_equal(images, np.stack(expected))
    assert labels.tolist() == [1, 0, 0]


def test_the_next_batch_is_decoded_while_the_last_one_is_worked_on(tmp_path):
    split = load(fill(tmp_path)).test
    decoded = []

    class Watched(FolderSplit):
        def _image(self, path):
            decoded.append(path)
            return super()._image(path)

    batches = Watched(split.files, split.labels, split.image_shape, split.preprocessing).batches(8)
    next(batches)
    patience = time.monotonic() + 20
    while len(decoded) < 16 and time.monotonic() < patience:
        time.sleep(0.001)
    assert sorted(decoded) == sorted(split.files[:16])  # the second batch, and no further
    batches.close()


def test_val_is_the_test_where_there_is_no_other_and_else_the_validation(tmp_path):
    two = load(fill(tmp_path / "two", ("train", "val")))
    assert {path.parts[-3] for path in two.test.files} == {"val"}
    three = load(fill(tmp_path / "three", ("train", "val", "test")))
    assert {path.parts[-3] for path in three.test.files} == {"test"}
    assert {path.parts[-3] for path in three.learning.validation.files} == {"val"}
    assert len(three.learning.train) == 40


def test_the_digest_is_that_of_names_and_sizes(tmp_path):
    name = fill(tmp_path)
    before = load(name).spec.digest
    assert load(name, seed=1).spec.digest == before
    (tmp_path / "test/cat/00.png").rename(tmp_path / "test/cat/99.png")
    assert load(name).spec.digest != before


@pytest.mark.parametrize("resize, crop, interpolation", [(16, 12, "bilinear"), (20, 20, "bicubic"), (9, 8, "nearest")])
def test_images_are_shown_as_torchvision_shows_them(tmp_path, resize, crop, interpolation):
    from torchvision.transforms import InterpolationMode

    preprocessing = Preprocessing("rgb", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), resize, interpolation, crop)
    data = load(fill(tmp_path, size=(31, 23), counts=3), preprocessing=preprocessing)
    theirs = ImageClassification(
        crop_size=crop,
        resize_size=resize,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=InterpolationMode(interpolation),
    )
    ((images, _),) = data.test.batches(10)
    expected = torch.stack([theirs(Image.open(path).convert("RGB")) for path in data.test.files])
    assert data.spec.image_shape == (3, crop, crop)
    assert torch.equal(normalise(images, data.spec.preprocessing), expected)


@pytest.mark.parametrize(
    "size, mode, shape, side",
    [
        ((300, 240), "RGB", (3, 224, 224), 224),
        ((300, 240), "L", (1, 224, 224), 224),
        ((32, 24), "RGB", (3, 24, 32), None),
        ((28, 28), "L", (1, 28, 28), None),
    ],
)
def test_large_images_are_cropped_as_usual_and_small_ones_taken_as_they_are(tmp_path, size, mode, shape, side):
    spec = load(fill(tmp_path, size=size, mode=mode, counts=2)).spec
    assert (spec.image_shape, spec.preprocessing.crop) == (shape, side)


def test_one_grey_image_among_colours_makes_nothing_grey(tmp_path):
    name = fill(tmp_path)
    write(tmp_path / "train/cat/00.png", mode="L")
    assert load(name).spec.preprocessing.colour == "rgb"


def test_calibration_images_need_no_labels_and_take_the_place_of_the_split(tmp_path):
    for number in range(5):
        write(tmp_path / "more" / "deep" / f"{number}.png", (32, 32), "L", seed=number)
    data = load("digits", calibration=tmp_path / "more")
    calibration = data.learning.calibration
    assert (len(calibration), calibration.labelled, data.learning.train.labelled) == (5, False, True)
    ((images, labels),) = calibration.batches(8)
    assert images.shape == (5, 1, 32, 32)
    assert labels.tolist() == [-1] * 5


def test_a_calibration_image_of_another_size_is_named(tmp_path):
    write(tmp_path / "0.png", (31, 32), "L")
    with pytest.raises(CompressError, match=r"the image .*0\.png is 1x32x31, and 1x32x32 is expected"):
        load("digits", calibration=tmp_path)


def test_an_image_smaller_than_the_crop_is_named_and_not_bordered_with_black(tmp_path):
    name = fill(tmp_path, counts=3)
    with pytest.raises(CompressError, match=r"\.png is 3x8x8, and 3x9x9 is expected"):
        load(name, preprocessing=Preprocessing("rgb", (0.5,) * 3, (0.5,) * 3, crop=9))


def test_a_damaged_image_is_named(tmp_path):
    name = fill(tmp_path)
    broken = tmp_path / "test/dog/07.png"
    broken.write_bytes(broken.read_bytes()[:100])
    data = load(name)
    with pytest.raises(CompressError, match=r"cannot read the image .*test/dog/07\.png"):
        list(data.test.batches(8))


@pytest.mark.parametrize(
    ("pixels", "mode"), [(np.float32(np.nan), "F"), (np.float32(np.inf), "F"), (np.uint16(999), "I")]
)
def test_numbers_that_are_no_bytes_are_refused_and_not_cut_off(tmp_path, pixels, mode):
    image = np.zeros((32, 32), pixels.dtype)
    image[3, 3] = pixels
    Image.fromarray(image).save(tmp_path / "0.tiff")
    with pytest.raises(CompressError, match=rf"0\.tiff has numbers of more than 8 bits \(mode {mode}"):
        load("digits", calibration=tmp_path)


def test_formats_that_start_programs_are_not_decoded(tmp_path):
    (tmp_path / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    with pytest.raises(CompressError, match=r"cannot read the image .*0\.png"):
        load("digits", calibration=tmp_path)


def test_images_of_one_colour_are_refused(tmp_path):
    for number in range(3):
        Image.new("L", (32, 32), 7).save(tmp_path / f"{number}.png")
    with pytest.raises(CompressError, match="is a single colour"):
        load("digits", calibration=tmp_path)


def test_a_folder_that_is_not_there_or_empty_is_refused(tmp_path):
    with pytest.raises(CompressError, match=r"cannot read the folder of images .*none"):
        images_below(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    with pytest.raises(CompressError, match="holds no images"):
        images_below(tmp_path)


@pytest.mark.parametrize(
    "parts, said", [((), "no such folders"), (("train",), "only train/"), (("test", "val"), "only val/")]
)
def test_missing_parts_are_named(tmp_path, parts, said):
    with pytest.raises(CompressError, match=rf"needs train/ and test/ \(or val/\).*it has {said}"):
        load(fill(tmp_path, parts, counts=1))


def test_a_class_without_images_is_refused(tmp_path):
    name = fill(tmp_path)
    (tmp_path / "train/eel").mkdir()
    with pytest.raises(CompressError, match="eel holds no images"):
        load(name)


def test_a_class_missing_in_one_part_is_named(tmp_path):
    name = fill(tmp_path)
    write(tmp_path / "train/eel/0.png")
    with pytest.raises(CompressError, match="test has no image of class 'eel'"):
        load(name)


def test_a_class_that_was_not_learned_is_named(tmp_path):
    name = fill(tmp_path)
    write(tmp_path / "test/eel/0.png")
    with pytest.raises(CompressError, match="test has the class 'eel', which is not in train/"):
        load(name)


def test_a_single_class_is_refused(tmp_path):
    write(tmp_path / "train/cat/0.png")
    write(tmp_path / "test/cat/0.png")
    with pytest.raises(CompressError, match="train has fewer than two classes: cat"):
        load(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path, kind):
    outside = write(tmp_path / "outside" / "0.png")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link.png").symlink_to(outside if kind == "file" else outside.parent)
    with pytest.raises(CompressError, match=r"link\.png is a link to a folder or out of its own"):
        images_below(tmp_path / "inside")


def test_a_link_within_the_folder_is_an_image_like_any_other(tmp_path):
    write(tmp_path / "0.png")
    (tmp_path / "1.png").symlink_to(tmp_path / "0.png")
    assert len(images_below(tmp_path)) == 2
