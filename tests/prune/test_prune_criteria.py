import copy
import dataclasses
from typing import get_args

import pytest
import torch
from digits_like import resources
from torch import Generator, nn

from compress.architecture import Architecture
from compress.checkpoint import Checkpoint
from compress.errors import UsageError
from compress.networks import UserNetwork
from compress.pipeline import Resources
from compress.prune.allocation import lowest_share
from compress.prune.calibration import batches
from compress.prune.criteria import CRITERIA, MEASURED, score_groups
from compress.prune.gradients import labelled
from compress.prune.groups import find_groups
from compress.prune.step import Prune

FILTERS = torch.tensor([[3.0, -4.0], [0.0, 1.0], [0.0, 2.0], [6.0, 8.0]])
SCALES = torch.tensor([[-0.5], [2.0], [0.0], [1.0]])


def score(name, filters=FILTERS, scales=SCALES, seed=0):
    return CRITERIA[name](filters, scales, Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_scores_each_channel_and_edits_nothing(name):
    filters, scales = FILTERS.clone(), SCALES.clone()
    found = score(name, filters, scales)
    assert found.shape == (4,)
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert torch.equal(filters, FILTERS)
    assert torch.equal(scales, SCALES)
    assert torch.equal(found, score(name))


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "random"])
def test_scores_follow_the_channels_when_those_are_reordered(name):
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(score(name, FILTERS[order], SCALES[order]), score(name)[order])


def test_scores_are_those_of_the_formulas():
    assert score("l1").tolist() == [7, 1, 2, 14]
    assert score("l2").tolist() == [5, 1, 2, 10]
    assert score("bn-scale").tolist() == [0.5, 2, 0, 1]
    distances = [[(a - b).norm() for b in FILTERS] for a in FILTERS]
    assert torch.allclose(score("fpgm"), torch.tensor(distances).sum(1))
    assert not torch.equal(score("random"), score("random", seed=1))


def test_the_step_offers_every_criterion():
    assert set(get_args(Prune.model_fields["criterion"].annotation)) == {*CRITERIA, *MEASURED}


def test_a_group_is_scored_by_every_layer_that_makes_its_channels():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 2, 1), nn.Flatten()
    )
    groups, _ = find_groups(network, (3, 5, 5))
    assert [(group.name, group.channels) for group in groups] == [("0", 4)]
    scores, refusals = score_groups(network, groups, "l2", Resources())
    made = torch.cat([network[0].weight.flatten(1), network[2].weight.reshape(4, -1)], 1)
    assert torch.allclose(scores[groups[0]], made.norm(dim=1))
    assert not refusals
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([1.0, -3.0, 0.0, 2.0]))
    assert score_groups(network, groups, "bn-scale", Resources())[0][groups[0]].tolist() == [1, 3, 0, 2]


def test_a_transposed_convolution_in_blocks_is_scored_by_the_weights_of_each_output():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Conv2d(6, 2, 1), nn.Flatten())
    with torch.no_grad():
        network[0].weight.zero_()
        network[1].weight.zero_()
        network[1].weight[2:, 1] = 1.0  # the second block's second output
    groups, _ = find_groups(network, (3, 5, 5))
    scores, _ = score_groups(network, groups, "l1", Resources())
    assert scores[groups[0]].tolist() == [0, 2 * 4]


def test_a_group_without_batch_norm_is_refused_by_a_criterion_that_reads_them():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1), nn.Flatten())
    groups, _ = find_groups(network, (3, 5, 5))
    scores, refusals = score_groups(network, groups, "bn-scale", Resources())
    assert [group.name for group in scores] == ["0"]
    assert [(refusal.layer, refusal.reason) for refusal in refusals] == [
        ("2", "the criterion bn-scale finds nothing to go by, such as a batch norm")
    ]


def test_an_unknown_criterion_names_the_nearest():
    with pytest.raises(UsageError, match="unknown criterion 'l3': did you mean l"):
        score_groups(nn.Sequential(), (), "l3", Resources())


def spoken():
    """A network of two layers, and images for it, with labels."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 10, 30), nn.Flatten()
    ).eval()
    return network, find_groups(network, (1, 32, 32))[0]


def test_taylor_is_the_mean_over_batches_of_what_gradients_say_of_each_channel():
    network, groups = spoken()
    scores, _ = score_groups(network, groups, "taylor", resources(), images=100)
    weight, terms = network[0].weight, []
    for images, labels in labelled(resources(), 100):
        loss = nn.functional.cross_entropy(network(images), labels)
        (gradient,) = torch.autograd.grad(loss, [weight])
        terms.append((gradient * weight).sum((1, 2, 3)).abs())
    assert len(terms) == 2, "several batches"
    assert torch.allclose(scores[groups[0]], torch.stack(terms).mean(0).detach(), rtol=1e-5)
    assert not torch.allclose(scores[groups[0]], 1.01 * torch.stack(terms).mean(0).detach(), rtol=1e-5)


def test_taylor_says_how_much_the_loss_changes_when_a_channel_shrinks_a_little():
    network, groups = spoken()
    scores, _ = score_groups(network, groups, "taylor", resources(), images=64)
    ((images, labels),) = labelled(resources(), 64)
    exact = copy.deepcopy(network).double()

    def loss(channel, factor):
        scaled = copy.deepcopy(exact)
        scaled[0].weight.data[channel] *= factor
        with torch.no_grad():
            return float(nn.functional.cross_entropy(scaled(images.double()), labels))

    for channel, score in enumerate(scores[groups[0]].tolist()):
        # A central difference is wrong by a share of about step ** 2, and the scores are sums of some 10 float32 numbers.
        slope = (loss(channel, 1 + 1e-4) - loss(channel, 1 - 1e-4)) / 2e-4
        assert score == pytest.approx(abs(slope), rel=1e-3)


def test_activation_is_the_mean_of_what_the_next_layer_is_given():
    network, groups = spoken()
    scores, _ = score_groups(network, groups, "activation", resources(), images=300)
    with torch.no_grad():
        given = [network[:3](shown) for shown in batches(resources(), 300, "test")]
    assert torch.allclose(scores[groups[0]], torch.cat(given).mean((0, 2, 3)), rtol=1e-5)
    assert not network[3]._forward_pre_hooks


def test_a_channel_that_is_flattened_is_scored_by_all_its_places():
    network = nn.Sequential(nn.Conv2d(1, 3, 3, 16), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 10)).eval()
    groups, _ = find_groups(network, (1, 32, 32))
    scores, _ = score_groups(network, groups, "activation", resources(), images=20)
    with torch.no_grad():
        (shown,) = batches(resources(), 20, "test")
        assert torch.allclose(scores[groups[0]], network[:2](shown).mean((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("name", MEASURED)
def test_criteria_that_ask_images_say_how_to_give_them(name):
    network, groups = spoken()
    with pytest.raises(UsageError, match="needs images: give --data NAME"):
        score_groups(network, groups, name, Resources())


@pytest.mark.parametrize("name", MEASURED)
def test_what_images_say_of_channels_decides_which_go(name):
    network, groups = spoken()
    with torch.no_grad():
        network[3].weight[:, 2] = 0  # nobody hears the third
        network[0].weight[2] *= 100
        network[1].weight[1] = 0
        network[1].bias[1] = -1  # and the second says nothing
    scores, _ = score_groups(network, groups, name, resources(), images=64)
    order = scores[groups[0]].argsort().tolist()
    assert order[0] in ((1, 2) if name == "taylor" else (1,))
    assert score_groups(network, groups, "l2", resources())[0][groups[0]].argmax() == 2


def test_where_no_group_can_go_nothing_is_asked_of_images():
    assert score_groups(spoken()[0], [], "taylor", Resources()) == ({}, ())


def test_equal_scores_are_removed_as_far_as_was_asked_for():
    """Network slimming makes many scales exactly zero, and none of them is below another."""
    scores = {name: torch.tensor([0.0, 0.0, 1.0, 1.0]) for name in ("first", "second")}
    assert lowest_share(scores, 0.25) == {"first": 2.0, "second": 0.0}
    assert lowest_share(scores, 0.5) == {"first": 2.0, "second": 2.0}
    assert lowest_share(scores, 1.0) == {"first": 4.0, "second": 4.0}


@pytest.mark.parametrize("settings", [{"criterion": "taylor"}, {"criterion": "activation"}, {"reconstruct": True}])
def test_frozen_weights_and_layers_called_by_keyword_are_no_hindrance(settings):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.linear = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 10)
            self.first.weight.requires_grad_(False)

        def forward(self, x):
            x = self.second(input=self.first(input=x).relu())
            return self.linear(input=x.relu().mean((2, 3)))

    user = UserNetwork(Named, "named.py:Named", "sha256:0")
    architecture = Architecture("user", user.name, {}, (1, 32, 32), code=user.digest)
    given = Checkpoint(architecture, Named().state_dict())
    pruned = Prune(channel_ratio=0.5, images=32, **settings)(given, dataclasses.replace(resources(), user=user))
    assert pruned.weights["first.weight"].shape[0] == 8
