"""The learning-rate range test."""

import math

import pytest
from tiny_training import checkpoint, resources, task

from compress.errors import CompressError
from compress.train.find_rate import find_rate, from_losses, plot
from compress.train.step import Train

DATA = task()


def test_the_rate_climbs_evenly_and_the_test_ends_when_the_loss_has_left():
    start = checkpoint(DATA)
    before = start.fingerprint
    test = find_rate(Train(batch=16), start, resources(DATA), lowest=1e-4, highest=1e4, steps=60)
    steps = [math.log(b / a) for a, b in zip(test.rates, test.rates[1:], strict=False)]
    assert steps == pytest.approx([8 * math.log(10) / 59] * len(steps))
    assert len(test.rates) < 60
    assert test.rates[0] == pytest.approx(1e-4)
    assert 1e-3 < test.suggestion < 10
    assert checkpoint(DATA).fingerprint == before
    assert test == find_rate(Train(batch=16), start, resources(DATA), lowest=1e-4, highest=1e4, steps=60)


def test_a_network_that_knows_its_task_is_told_that_no_rate_is_better():
    """Its losses are next to nothing, and one batch's is many times another's before any rate does harm."""
    data = task()
    known = Train(epochs=30, batch=16, rate=0.05, augmentation="none")(checkpoint(data), resources(data))
    with pytest.raises(CompressError, match=r"never fell below the 0\.0\d* it began with.*Give --rate yourself"):
        find_rate(Train(batch=4, augmentation="none"), known, resources(data))


def test_losses_are_smoothed_and_the_suggestion_is_a_tenth_of_the_best():
    losses = [1.0] * 10 + [0.0, 5.0, math.nan]
    rates = [10.0**step for step in range(13)]
    test = from_losses(rates, losses)
    assert test.losses[10:] == pytest.approx([0.8, 0.8 * 0.8 + 0.2 * 5])
    assert test.suggestion == 1e9


def test_too_few_steps_say_nothing():
    with pytest.raises(
        CompressError, match="ended after 2 steps, too few to read: the loss was not finite at a rate of 4"
    ):
        from_losses([1.0, 2.0, 4.0], [1.0, 1.0, math.nan])


def test_the_plot_is_the_same_every_time(tmp_path):
    test = from_losses([10.0**step for step in range(-6, 6)], [3 - step / 6 for step in range(12)])
    for name in ("a.svg", "b.svg"):
        plot(test, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "learning rate" in text and f"suggested: {test.suggestion:.2g}" in text
