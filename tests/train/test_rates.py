"""How the learning rate goes: against torch's own schedulers, and by hand."""

import pytest
import torch
from torch.optim import lr_scheduler

from compress.train.rates import RATES, WARMUPS, factor, rate

STEPS = 60


def torchs(make):
    """The factors that one of torch's schedulers gives over STEPS steps."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimiser)
    found = []
    for _ in range(STEPS):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return found


THEIRS = {
    "constant": lambda each: lr_scheduler.ConstantLR(each, factor=1.0),
    "linear": lambda each: lr_scheduler.LinearLR(each, 1.0, 0.0, total_iters=STEPS),
    "cosine": lambda each: lr_scheduler.CosineAnnealingLR(each, STEPS),
    "restarts": lambda each: lr_scheduler.CosineAnnealingWarmRestarts(each, STEPS // 3),
    "step": lambda each: lr_scheduler.StepLR(each, STEPS // 3, gamma=0.2),
    "exponential": lambda each: lr_scheduler.ExponentialLR(each, gamma=0.2 ** (1 / STEPS)),
    "inverse": lambda each: lr_scheduler.LambdaLR(each, lambda k: 1 / (1 + 4 * k / STEPS)),
    "one-cycle": lambda each: lr_scheduler.OneCycleLR(each, max_lr=1.0, total_steps=STEPS, cycle_momentum=False),
}


@pytest.mark.parametrize("name", RATES)
def test_every_rate_is_torchs(name):
    places = [step / STEPS for step in range(STEPS)]
    if name == "one-cycle":  # torch's peak lies at step 0.3 * 60 - 1 and its end at step 59: asked there
        peak, last = 0.3 * STEPS - 1, STEPS - 1
        places = [
            0.3 * step / peak if step <= peak else 0.3 + 0.7 * (step - peak) / (last - peak) for step in range(STEPS)
        ]
    ours = [rate(name, cycles=3, decay=0.2)(min(place, 1.0)) for place in places]
    assert ours == pytest.approx(torchs(THEIRS[name]), abs=1e-9)
    assert ours != pytest.approx(torchs(THEIRS["linear" if name == "cosine" else "cosine"]), abs=0.01)


@pytest.mark.parametrize("name", RATES)
def test_no_rate_leaves_zero_to_one_and_each_reaches_its_highest(name):
    values = [rate(name, 3, 0.1)(step / 50) for step in range(51)]
    assert all(0 <= value <= 1 for value in values)
    assert max(values) == pytest.approx(1)


def test_rates_worked_by_hand():
    def at(name, progress):
        return rate(name, cycles=2, decay=0.25)(progress)

    assert at("cosine", 1 / 3) == pytest.approx(0.75)
    assert at("linear", 0.25) == 0.75
    assert [at("step", progress) for progress in (0, 0.49, 0.5, 1)] == [1, 1, 0.25, 0.25]
    assert at("exponential", 0.5) == pytest.approx(0.5)
    assert at("inverse", 1 / 3) == pytest.approx(0.5)
    assert [at("restarts", progress) for progress in (0, 0.25, 0.5, 1)] == pytest.approx([1, 0.5, 1, 0])
    assert [at("one-cycle", progress) for progress in (0, 0.15, 0.3, 1)] == pytest.approx([0.04, 0.52, 1, 4e-6])


def test_the_warm_up_climbs_to_one_and_never_starts_at_zero():
    found = [factor(rate("cosine", 1, 1), step, 14, 4) for step in range(14)]
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[4:] == sorted(found[4:], reverse=True)


@pytest.mark.parametrize("shape", WARMUPS)
def test_warm_ups_worked_by_hand(shape):
    found = [factor(rate("constant", 1, 1), step, 10, 3, shape) for step in range(4)]
    first, second = {"linear": (0.25, 0.5), "exponential": (0.01**0.75, 0.1), "cosine": (0.5 - 0.5**1.5, 0.5)}[shape]
    assert found[:2] == pytest.approx([first, second])
    assert found == sorted(found) and found[3] == 1


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert factor(rate("cosine", 1, 1), 0, 10, 0) == 1
