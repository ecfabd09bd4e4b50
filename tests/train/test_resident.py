"""Images kept on the device."""

import numpy as np
import torch
from tiny_training import task

from compress.train.resident import Resident, near

SPLIT = task().train


def test_its_batches_are_the_splits_own():
    for order in (None, np.array([5, 1, 1, 70, 3])):
        ours, theirs = [*Resident(SPLIT, "cpu").batches(2, order)], [*SPLIT.batches(2, order)]
        assert len(ours) == len(theirs)
        assert all(
            torch.equal(a, b) for mine, own in zip(ours, theirs, strict=True) for a, b in zip(mine, own, strict=True)
        )
    assert len(Resident(SPLIT, "cpu")) == len(SPLIT) and Resident(SPLIT, "cpu").labelled


def test_a_cpu_needs_no_copy_and_too_many_images_get_none():
    assert near(SPLIT, (3, 8, 8), "cpu") is SPLIT
    assert near(SPLIT, (3, 10**5, 10**5), "cuda") is SPLIT
