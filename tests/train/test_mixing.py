"""Two images in one, and a target to match."""

import pytest
import torch

from compress.train.mixing import mixing

LABELS = torch.arange(8) % 4


def images():
    return torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(5))


def mixed(mixup, cutmix, probability=1.0, seed=0):
    return mixing(4, mixup, cutmix, probability)(images(), LABELS, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_mixup_adds_a_share_of_the_neighbour_to_the_image_and_to_its_target(seed):
    found, targets = mixed(1.0, 0.0, seed=seed)
    share = float(targets[0, LABELS[0]])
    assert torch.allclose(found, share * images() + (1 - share) * images().roll(1, 0), atol=1e-6)
    hot = torch.nn.functional.one_hot(LABELS, 4).float()
    assert torch.allclose(targets, share * hot + (1 - share) * hot.roll(1, 0), atol=1e-6)
    assert 0 < share < 1


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_takes_the_neighbours_pixels_and_as_much_of_its_target(seed):
    found, targets = mixed(0.0, 1.0, seed=seed)
    own, others = found == images(), found == images().roll(1, 0)
    assert (own | others).all()
    share = float(own[0, 0].float().mean())
    assert float(targets[0, LABELS[0]]) == pytest.approx(share)
    assert torch.allclose(targets.sum(1), torch.ones(8))


def test_both_come_in_turn_and_only_as_often_as_asked():
    kinds = {"mixup": 0, "cutmix": 0, "neither": 0}
    mix, chance = mixing(4, 1.0, 1.0, 0.5), torch.Generator().manual_seed(3)
    for _ in range(200):
        found, targets = mix(images(), LABELS, chance)
        own = (found == images()).float().mean()
        whole = bool(own == 1)
        kinds["neither" if targets is LABELS else "cutmix" if own > 0.02 or whole else "mixup"] += 1
    # 100, 50 and 50, give or take four standard deviations of at most 7
    assert abs(kinds["neither"] - 100) < 29 and abs(kinds["mixup"] - 50) < 26 and abs(kinds["cutmix"] - 50) < 26


def test_a_draw_follows_its_generator_and_leaves_torchs_own_alone():
    state = torch.random.get_rng_state()
    assert torch.equal(mixed(1.0, 0.0)[0], mixed(1.0, 0.0)[0])
    assert not torch.equal(mixed(1.0, 0.0)[0], mixed(1.0, 0.0, seed=1)[0])
    assert torch.equal(torch.random.get_rng_state(), state)
