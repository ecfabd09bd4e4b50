"""Other colours: as torchvision does it for one image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from compress.data.augment_colour import GROUP, blend, follow_policy, hue, recolour


def images(count=4, channels=3):
    return torch.randint(0, 256, (count, channels, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("place", "theirs"), [(0, F.adjust_brightness), (1, F.adjust_contrast), (2, F.adjust_saturation)]
)
def test_each_factor_is_torchvisions(place, theirs, channels):
    batch, factors = images(channels=channels), torch.tensor([0.0, 0.6, 1.0, 1.7])
    found = blend(batch, *(factors if each == place else torch.ones(4) for each in range(3))).int()
    for one, factor, mine in zip(batch, factors, found, strict=True):
        # torchvision cuts off what comes after the point, here and in the grey; ours is rounded
        assert (theirs(one, float(factor)).int() - mine).abs().max() <= 2
    if channels == 3 or place < 2:
        wrong = blend(batch, *(factors * 1.5 if each == place else torch.ones(4) for each in range(3))).int()
        assert (wrong - found).abs().max() > 20


def test_brightness_worked_by_hand():
    batch = torch.tensor([10, 100, 200], dtype=torch.uint8).view(1, 3, 1, 1)
    assert blend(batch, torch.tensor([1.5]), torch.ones(1), torch.ones(1)).flatten().tolist() == [15, 150, 255]


def test_every_image_has_its_own_factors():
    batch = images(1).expand(6, -1, -1, -1)
    assert len({image.numpy().tobytes() for image in recolour(batch, torch.Generator(), 0.3, 0, 0)}) == 6


@pytest.mark.parametrize("amounts", [(0.3, 0, 0), (0, 0.3, 0), (0, 0, 0.3)])
def test_each_amount_changes_images_and_zero_none(amounts):
    assert not torch.equal(recolour(images(), torch.Generator(), *amounts), images())
    assert torch.equal(recolour(images(), torch.Generator(), 0, 0, 0), images())


def test_hue_turns_colours_and_leaves_grey_alone():
    batch = images(1).expand(3 * GROUP, -1, -1, -1)
    turned = hue(batch, torch.Generator().manual_seed(0), 0.5)
    assert len({image.numpy().tobytes() for image in turned}) == 3
    grey = images(2, channels=1).expand(-1, 3, -1, -1)
    assert (hue(grey, torch.Generator(), 0.5).int() - grey.int()).abs().max() <= 1


@pytest.mark.parametrize("policy", ["randaugment", "autoaugment"])
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_follow_their_generator_and_leave_the_global_source_alone(policy, channels):
    batch = images(4 * GROUP, channels)
    state = torch.random.get_rng_state()
    first, again, other = (follow_policy(batch, torch.Generator().manual_seed(seed), policy) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other) and not torch.equal(first, batch)
    assert first.shape == batch.shape and first.dtype == torch.uint8
