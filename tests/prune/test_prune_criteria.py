from typing import get_args

import pytest
import torch
from torch import Generator, nn

from compress.errors import UsageError
from compress.pipeline import Resources
from compress.prune.criteria import CRITERIA, MEASURED, score_groups
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
