import pytest
import torch
from torchvision.transforms.v2 import functional as F

from compress.data.augment import PRESETS, augmentation, crop, flip
from compress.data.spec import DatasetSpec, Preprocessing
from compress.errors import UsageError

COLOUR = DatasetSpec("c", ("a", "b"), (3, 8, 6), Preprocessing("rgb", (0.5,) * 3, (0.5,) * 3), "")
GREY = DatasetSpec("g", ("a", "b"), (1, 8, 6), Preprocessing("grey", (0.5,), (0.5,)), "")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, channels=3):
    return torch.randint(0, 256, (count, channels, 8, 6), dtype=torch.uint8, generator=generator(1))


@pytest.mark.parametrize("border, mode", [("zero", "constant"), ("reflect", "reflect")])
def test_every_crop_is_one_of_torchvisions_and_every_one_of_those_comes(border, mode):
    one = images(1)
    padded = F.pad(one, [2], padding_mode=mode)
    expected = {F.crop(padded, top, left, 8, 6).numpy().tobytes() for top in range(5) for left in range(5)}
    assert len(expected) == 25
    cropped = crop(one.expand(500, -1, -1, -1), generator(), 2, border)
    # One of 25 places stays empty in 500 draws with probability below 25 * 0.96 ** 500 < 1e-7; the seed is fixed.
    assert {image.numpy().tobytes() for image in cropped} == expected


def test_every_image_is_drawn_for_on_its_own_and_keeps_its_place():
    batch = torch.arange(1, 41, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 3, 8, 6)
    cropped = crop(batch, generator(), 2)
    assert all(set(image.unique().tolist()) <= {0, number} for number, image in enumerate(cropped, 1))
    assert len({tuple((image > 0).flatten().tolist()) for image in cropped}) > 1


def test_an_image_is_mirrored_or_left_and_both_happen():
    batch = images(200)
    flipped = flip(batch, generator())
    left = (flipped == batch).flatten(1).all(1)
    mirrored = (flipped == F.horizontal_flip(batch)).flatten(1).all(1)
    assert (left ^ mirrored).all()
    assert 60 < mirrored.sum() < 140  # 100 +- 5.7 standard deviations


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("spec", [COLOUR, GREY])
def test_a_preset_keeps_shape_and_type_and_is_decided_by_its_generator(name, spec):
    batch = images(16, spec.image_shape[0])
    before, augment = batch.clone(), augmentation(name, spec)
    first, again = augment(batch, generator(3)), augment(batch, generator(3))
    assert first.shape == batch.shape and first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert torch.equal(batch, before)
    assert torch.equal(augment(batch, generator(4)), first) == (name == "none")


def test_grey_images_are_never_mirrored():
    batch = torch.zeros(200, 1, 8, 6, dtype=torch.uint8)
    batch[:, :, 3:5, 2] = 1
    batch[:, :, 3:5, 3] = 2
    moved = augmentation("light", GREY)(batch, generator())
    assert all(((image[0, 4, :-1] == 1) & (image[0, 4, 1:] == 2)).sum() == 1 for image in moved if image[0, 4].any())
    assert moved.flatten(1).any(1).all()


def test_an_unknown_augmentation_lists_all():
    with pytest.raises(UsageError, match="unknown augmentation 'lite': did you mean light"):
        augmentation("lite", COLOUR)
