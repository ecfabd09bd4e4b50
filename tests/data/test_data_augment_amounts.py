"""What presets ask for, and what may be asked for besides."""

import pytest
import torch

from compress.data.augment import augmentation, erase
from compress.data.spec import DatasetSpec, Preprocessing
from compress.errors import UsageError

COLOUR = DatasetSpec("c", ("a", "b"), (3, 12, 10), Preprocessing("rgb", (0.2, 0.4, 0.6), (0.5,) * 3), "")
GREY = DatasetSpec("g", ("a", "b"), (1, 12, 10), Preprocessing("grey", (0.5,), (0.5,)), "")
CHANGES = {
    "padding": 2,
    "flip": True,
    "rotation": 20.0,
    "translation": 0.2,
    "shear": 10.0,
    "scaling": 0.3,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.2,
    "policy": "randaugment",
    "erasing": 1.0,
}


def batch():
    return torch.randint(0, 256, (32, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CHANGES)
def test_each_piece_can_be_asked_for_by_itself_and_left_out_of_a_preset(name):
    alone = augmentation("none", COLOUR, **{name: CHANGES[name]})
    assert not torch.equal(alone(batch(), torch.Generator().manual_seed(0)), batch())
    if name in ("padding", "flip", "rotation", "erasing"):
        chance = [torch.Generator().manual_seed(0) for _ in range(2)]
        without = augmentation("heavy", COLOUR, **{name: type(CHANGES[name])()})
        assert not torch.equal(without(batch(), chance[0]), augmentation("heavy", COLOUR)(batch(), chance[1]))


def test_erasing_covers_a_rectangle_of_the_right_size_in_the_colour_given():
    white = torch.full((2000, 3, 40, 40), 255, dtype=torch.uint8)
    erased = erase(white, torch.Generator().manual_seed(0), 0.3, (51, 102, 153))
    covered = (erased == torch.tensor([51, 102, 153], dtype=torch.uint8)[:, None, None]).all(1)
    assert torch.equal(covered, ~(erased == 255).all(1))
    touched = covered.flatten(1).any(1)
    assert abs(touched.float().mean() - 0.3) < 0.05  # 0.3 +- 0.01; five of these
    rows, columns = covered.any(2), covered.any(1)
    assert torch.equal(covered, rows[:, :, None] & columns[:, None, :])
    inner = touched & ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])
    area = covered.flatten(1).float().mean(1)[inner]
    ratio = rows.sum(1)[inner] / columns.sum(1)[inner]
    # 0.02 to 0.33, and 0.3 to 3.3, where a side of at least 3 pixels is off by less than one
    assert area.min() > 0.008 and area.max() < 0.40
    assert ratio.min() > 0.15 and ratio.max() < 5
    assert area.max() > 0.25 and ratio.max() > 2 and ratio.min() < 0.5


def test_an_erased_pixel_is_zero_after_normalising():
    from compress.data.normalise import normalise

    erased = augmentation("none", COLOUR, erasing=1.0)(batch(), torch.Generator().manual_seed(0))
    values = normalise(erased, COLOUR.preprocessing)
    assert (values.abs() < 1e-6).all(1).flatten(1).any(1).float().mean() > 0.8


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_colours_of_grey_images_are_refused(name):
    with pytest.raises(UsageError, match=f"{name} cannot be changed: the images of g are grey"):
        augmentation("light", GREY, **{name: 0.1})


def test_a_shift_as_large_as_the_image_is_refused():
    with pytest.raises(UsageError, match="up to 10 pixels was asked for, and the images of c are 12x10"):
        augmentation("none", COLOUR, padding=10)
