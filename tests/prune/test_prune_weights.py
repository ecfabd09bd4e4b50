import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.prune.weights import CRITERIA, lamp, lowest, magnitude, ranked, taylor, two_of_four

SEEDS = st.integers(0, 10_000)


def drawn(seed, *shapes):
    """Layers of few different values, so that many scores are equal and some weights are zero."""
    chance = torch.Generator().manual_seed(seed)
    return {
        str(number): torch.randint(-3, 4, shape, generator=chance).float() / 2 for number, shape in enumerate(shapes)
    }


def scored(layers, criterion=magnitude, largest=1.0):
    return {name: ranked(layer, criterion(layer, layer.square()), largest) for name, layer in layers.items()}


def zeroed(layers, count):
    going = lowest(scored(layers), count)
    return {name: layer.masked_fill(going[name], 0) for name, layer in layers.items()}


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.floats(0, 1))
def test_exactly_as_many_go_as_were_asked_for_and_none_that_stays_scores_lower(seed, share):
    scores = scored(drawn(seed, (4, 3, 3, 3), (5, 4), (7, 1, 1)))
    count = round(share * 135)
    going = lowest(scores, count)
    assert sum(int(places.sum()) for places in going.values()) == count
    gone = torch.cat([scores[name][going[name]] for name in scores])
    kept = torch.cat([scores[name][~going[name]] for name in scores])
    assert not len(gone) or not len(kept) or gone.max() <= kept.min()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 60), st.integers(0, 60))
def test_zeroing_twice_is_zeroing_once_by_the_larger_count(seed, first, second):
    chance = torch.Generator().manual_seed(seed)
    layers = {"a": torch.randn(6, 5, generator=chance), "b": torch.randn(30, generator=chance)}
    twice, once = zeroed(zeroed(layers, first), second), zeroed(layers, max(first, second))
    assert all(torch.equal(twice[name], once[name]) for name in layers)


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_weights_that_are_zero_go_before_all_others_and_no_score_is_negative(criterion, seed):
    layers = drawn(seed, (8, 6), (20,))
    already = sum(int((layer == 0).sum()) for layer in layers.values())
    assert all((criterion(layer, layer.square()) >= 0).all() for layer in layers.values())
    going = lowest(scored(layers, criterion, largest=0.5), already)
    assert all(torch.equal(going[name], layer == 0) for name, layer in layers.items())


def test_a_layer_loses_no_more_than_the_largest_share_while_others_have_weights_to_give():
    layers = {"small": torch.full((10,), 0.01) + torch.arange(10) / 1e4, "large": torch.ones(10) + torch.arange(10)}
    bounded = lowest(scored(layers, largest=0.8), 12)
    assert [int(places.sum()) for places in bounded.values()] == [8, 4]
    assert [int(places.sum()) for places in lowest(scored(layers), 12).values()] == [10, 2]


def test_the_scores_are_those_worked_by_hand():
    weights, squares = torch.tensor([[3.0, -1.0], [0.0, 2.0]]), torch.tensor([[0.5, 4.0], [9.0, 0.0]])
    assert torch.equal(magnitude(weights, squares), torch.tensor([[3.0, 1.0], [0.0, 2.0]]))
    # Ranked 0, 1, 4, 9, the sums from each on are 14, 14, 13, 9.
    expected = torch.tensor([[1.0, 1 / 14], [0.0, 4 / 13]], dtype=torch.float64)
    assert torch.allclose(lamp(weights, squares), expected, rtol=1e-12)
    assert not torch.allclose(lamp(weights, squares), 1.01 * expected, rtol=1e-12)
    assert torch.equal(taylor(weights, squares), torch.tensor([[4.5, 4.0], [0.0, 0.0]]))


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_lamp_ranks_a_layer_as_magnitude_does_does_not_know_its_scale_and_ends_at_one(seed):
    weights = torch.randn(50, generator=torch.Generator().manual_seed(seed))
    scores = lamp(weights, weights)
    assert torch.equal(scores.argsort(), weights.abs().argsort())
    assert scores.max() == 1
    assert torch.allclose(lamp(1000 * weights, weights), scores, rtol=1e-5)


def test_lamp_of_a_layer_of_zeros_is_finite():
    assert lamp(torch.zeros(4), torch.zeros(4)).isfinite().all()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 3), st.integers(1, 3))
def test_two_of_every_four_along_the_axis_go_and_they_are_the_lowest(seed, axis, fours):
    shape = [3, 2, 1, 5]
    shape[axis] = 4 * fours
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    going = two_of_four(scores, axis)
    assert going.shape == scores.shape
    for lane, gone in zip(scores.movedim(axis, -1).reshape(-1, 4), going.movedim(axis, -1).reshape(-1, 4), strict=True):
        assert int(gone.sum()) == 2
        assert lane[gone].max() < lane[~gone].min()


def test_four_neighbours_are_input_channels_at_one_place_of_the_kernel():
    scores = torch.ones(1, 8, 1, 2)
    scores[0, [1, 2, 4, 7], 0, 0] = 0
    scores[0, [0, 3, 5, 6], 0, 1] = 0
    assert torch.equal(two_of_four(scores, 1), scores == 0)
