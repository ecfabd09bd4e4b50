import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.data.arrays import ArraySplit, Part
from compress.data.splits import VALIDATION_SHARE, Joined, check_labels, cut, sample, shuffled
from compress.errors import CompressError

label_lists = st.lists(st.integers(2, 60), min_size=2, max_size=8).map(
    lambda counts: np.repeat(np.arange(len(counts)), counts)
)


@settings(deadline=None)
@given(label_lists, st.integers(0, 2**32 - 1))
def test_cutting_gives_every_image_to_one_part_and_each_class_its_share(labels, seed):
    classes = tuple(map(str, range(labels.max() + 1)))
    train, validation = cut(labels, classes, seed)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    count = max(len(classes), round(VALIDATION_SHARE * len(labels)))
    assert len(validation) == count
    for label in range(len(classes)):
        # Largest remainders are handed out one by one, so a class is never further than one from its share.
        share = count * (labels == label).mean()
        assert abs((labels[validation] == label).sum() - share) <= 1


def test_the_cut_is_that_of_the_seed():
    labels = np.arange(200) % 10
    classes = tuple("abcdefghij")
    assert np.array_equal(cut(labels, classes, 5)[1], cut(labels, classes, 5)[1])
    assert not np.array_equal(cut(labels, classes, 5)[1], cut(labels, classes, 6)[1])


def test_a_class_with_one_training_image_is_refused():
    with pytest.raises(CompressError, match="class 'b' has fewer than two training images"):
        cut(np.array([0, 0, 0, 1]), ("a", "b"), 0)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_shuffling_keeps_every_position(count, seed):
    assert sorted(shuffled(count, seed)) == list(range(count))


def test_the_order_of_a_seed_stays_what_it_was():
    """Recorded once from numpy's frozen generator; another order would calibrate other images under an old seed."""
    assert shuffled(8, 0).tolist() == [6, 2, 1, 7, 3, 0, 5, 4]


@settings(deadline=None)
@given(st.integers(1, 500))
def test_a_sample_is_spread_from_the_first_image_to_the_last(count):
    positions = sample(count)
    assert len(set(positions)) == min(count, 16)
    assert positions[0] == 0
    assert count <= 1 or positions[-1] == count - 1


@pytest.mark.parametrize(
    "labels, classes, said",
    [
        (
            [0, 1, 2],
            ("a", "b"),
            r"has the label 2 \(1 labels are out of range\), and with 2 classes labels go from 0 to 1",
        ),
        ([0, 1, -1], ("a", "b"), "has the label -1"),
        ([0, 0, 2], ("a", "b", "c"), r"has no image of class 'b' \(1 of 3 classes"),
        ([0, 0], ("a",), "has fewer than two classes: a"),
    ],
)
def test_labels_that_do_not_number_the_classes_are_refused(labels, classes, said):
    with pytest.raises(CompressError, match="the test part " + said):
        check_labels(np.array(labels), classes, "the test part")


def test_joined_splits_are_the_one_after_the_other_in_any_order():
    chance = np.random.default_rng(0)
    part = Part(chance.integers(0, 256, (10, 4, 4, 1), dtype=np.uint8), np.arange(10))
    whole = ArraySplit(part, np.arange(10))
    joined = Joined(ArraySplit(part, np.arange(6)), ArraySplit(part, np.arange(6, 10)))
    assert len(joined) == 10
    for order in (None, chance.permutation(10), np.array([9, 8]), np.array([0])):
        for size in (1, 3, 10):
            pairs = zip(joined.batches(size, order), whole.batches(size, order), strict=True)
            assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
