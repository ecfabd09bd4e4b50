"""Images turned, moved, sheared and resized: as torchvision does it for one image, here for each its own."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from compress.data.augment_affine import affine, warp


def smooth(count, height=20, width=14):
    """Images without sharp edges, so that pixels differ by little where a position differs by little."""
    noise = torch.rand(count, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    return (255 * torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")).to(torch.uint8)


def warped(images, angle=0.0, shift=(0.0, 0.0), scale=1.0, shear=(0.0, 0.0)):
    count = len(images)
    return warp(
        images,
        torch.full((count,), angle),
        torch.tensor([shift]).expand(count, 2),
        torch.full((count,), scale),
        torch.tensor([shear]).expand(count, 2),
    )


CASES = {
    "angle": {"angle": 25.0},
    "shift": {"shift": (2.5, -3.0)},
    "scale": {"scale": 0.8},
    "shear": {"shear": (15.0, -8.0)},
    "all": {"angle": -40.0, "shift": (1.0, 2.0), "scale": 1.3, "shear": (10.0, 20.0)},
}


@pytest.mark.parametrize("name", CASES)
def test_a_warp_is_torchvisions(name):
    case, images = CASES[name], smooth(3)
    expected = F.affine(
        images.float(),
        angle=case.get("angle", 0.0),
        translate=list(case.get("shift", (0.0, 0.0))),
        scale=case.get("scale", 1.0),
        shear=list(case.get("shear", (0.0, 0.0))),
        interpolation=InterpolationMode.BILINEAR,
    )
    found = warped(images, **case).float()
    # half a level from rounding, and float32 positions good to 1e-5 pixels where neighbours differ by under 255
    assert (found - expected).abs().max() < 0.51
    other = {
        key: value * 1.02 if isinstance(value, float) else tuple(1.02 * each for each in value)
        for key, value in case.items()
    }
    assert (warped(images, **other).float() - expected).abs().max() > 1


def test_a_shift_of_whole_pixels_moves_the_image():
    images = smooth(2)
    moved = warped(images, shift=(3.0, 0.0))
    assert torch.equal(moved[:, :, :, 3:], images[:, :, :, :-3])
    assert not moved[:, :, :, :3].any()


def test_every_image_has_its_own_draw_and_none_is_drawn_at_zero():
    images = smooth(1).expand(8, -1, -1, -1)
    turned = affine(images, torch.Generator().manual_seed(1), 30, 0, 0, 0)
    assert len({image.numpy().tobytes() for image in turned}) == 8
    assert torch.equal(affine(images, torch.Generator(), 0, 0, 0, 0), images)


@pytest.mark.parametrize("amounts", [(20, 0, 0, 0), (0, 0.2, 0, 0), (0, 0, 20, 0), (0, 0, 0, 0.3)])
def test_each_amount_changes_images(amounts):
    assert not torch.equal(affine(smooth(4), torch.Generator().manual_seed(1), *amounts), smooth(4))
