"""The one training loop: what it promises whoever gives it its parts."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from compress.data.arrays import ArraySplit, Part
from compress.data.spec import Preprocessing
from compress.errors import CompressError
from compress.progress import silent
from compress.train.gradients import clip_norm
from compress.train.loop import Diverged, Plan, State, fit
from compress.train.objectives import cross_entropy
from compress.train.optimisers import optimiser
from compress.train.state import Run, keeper, restore, save

PLAN = Plan(
    epochs=3,
    batch=8,
    seed=1,
    device="cpu",
    preprocessing=Preprocessing("grey", (0.5,), (0.5,)),
    objective=cross_entropy(),
    factor=lambda step: 1.0,
)


def images(count=40):
    chance = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pixels = chance.integers(0, 60, (count, 8, 8, 1)) + 150 * labels[:, None, None, None]
    return ArraySplit(Part(pixels.astype(np.uint8), labels.astype(np.int64)), np.arange(count))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16, 2),
    )


def trained(plan=PLAN, rate=0.05, made=None):
    made = made or network()
    return fit(made, images(), optimiser("sgd", made, rate, 0.0), plan, silent)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns():
    curves = trained(dataclasses.replace(PLAN, epochs=8)).curves
    assert curves["train_loss"][-1] < 0.5 * curves["train_loss"][0]
    assert len(curves["train_top1"]) == len(curves["rate"]) == 8


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    assert same(trained().weights, trained().weights)
    assert not same(trained().weights, trained(dataclasses.replace(PLAN, seed=2)).weights)


def test_the_highest_seed_is_one_too():
    assert trained(dataclasses.replace(PLAN, epochs=1, seed=2**32 - 1)).epoch == 1


def test_a_rate_of_zero_changes_no_parameter():
    before = network().state_dict()
    after = trained(dataclasses.replace(PLAN, factor=lambda step: 0.0)).weights
    assert all(
        torch.equal(before[name], after[name]) for name in before if "running" not in name and "num_" not in name
    )


def test_accumulated_pieces_take_the_step_of_the_whole_batch():
    made = [nn.Sequential(nn.Flatten(), nn.Linear(64, 2)) for _ in range(2)]
    made[1].load_state_dict(made[0].state_dict())
    whole, pieces = trained(made=made[0]), trained(dataclasses.replace(PLAN, accumulate=4), made=made[1])
    for name, tensor in whole.weights.items():
        # 15 steps of sums over 8 float32 terms taken in another order
        assert torch.allclose(tensor, pieces.weights[name], rtol=0, atol=15 * 8 * 1.2e-7)


def test_clipping_shortens_the_step():
    short = dataclasses.replace(PLAN, epochs=1, clip=lambda network: clip_norm(network, 1e-3))
    before, after, clipped = (
        network().state_dict(),
        trained(dataclasses.replace(PLAN, epochs=1)).weights,
        trained(short).weights,
    )
    moved = [float((weights["6.weight"] - before["6.weight"]).norm()) for weights in (after, clipped)]
    assert moved[1] < 0.05 * moved[0]


def test_gradients_are_reduced_once_a_step_when_they_are_complete_and_before_they_are_clipped():
    calls = []

    def reduce(made):
        calls.append("reduce")
        for parameter in made.parameters():
            parameter.grad.zero_()

    def clip(made):
        calls.append("clip")
        assert not any(parameter.grad.any() for parameter in made.parameters())

    plan = dataclasses.replace(PLAN, epochs=1, accumulate=2, reduce=reduce, clip=clip)
    before, after = network().state_dict(), trained(plan).weights
    assert calls == ["reduce", "clip"] * 5
    assert torch.equal(before["0.weight"], after["0.weight"])


def test_scores_are_judged_as_asked():
    scores = iter([5.0, 1.0, 2.0, 3.0])
    plan = dataclasses.replace(
        PLAN, epochs=4, validate=lambda made: next(scores), patience=4, judge=lambda found: float(len(found))
    )
    result = trained(plan)
    assert result.epoch == 4
    assert result.curves["validation_top1"] == (5.0, 1.0, 2.0, 3.0)


def test_weights_that_overflow_while_the_loss_stays_finite_stop_the_run():
    def overflow(made, step):
        made[1].running_var.fill_(float("inf"))

    with pytest.raises(Diverged, match="the loss was finite, but not the weights or statistics, in epoch 1, at step 5"):
        trained(dataclasses.replace(PLAN, after_step=(overflow,)))


def test_a_network_that_is_no_longer_finite_is_not_saved_over_one_that_was(tmp_path):
    made = network()
    run = Run(made, optimiser("sgd", made, 0.05, 0.0))
    keep = keeper(tmp_path / "a", {}, run, seconds=0)
    keep(State(taken=1))
    made[6].weight.data.fill_(float("nan"))
    keep(State(taken=2))
    assert restore(tmp_path / "a", {}, run).taken == 1
    assert made[6].weight.isfinite().all()


def test_patience_stops_and_keeps_the_best_epoch():
    scores = iter([1.0, 5.0, 4.0, 3.0, 9.0])
    seen = []

    def validate(made):
        seen.append({name: tensor.clone() for name, tensor in made.state_dict().items()})
        return next(scores)

    result = trained(dataclasses.replace(PLAN, epochs=5, validate=validate, patience=2))
    assert result.epoch == 2
    assert result.curves["validation_top1"] == (1.0, 5.0, 4.0, 3.0)
    assert same(result.weights, seen[1])


def test_without_patience_the_last_epoch_is_kept():
    result = trained(dataclasses.replace(PLAN, validate=lambda made: -1.0))
    assert result.epoch == 3


def test_a_loss_that_is_not_finite_stops_with_advice():
    with pytest.raises(
        CompressError, match=r"diverged: the loss was (nan|inf) in epoch 1, at step \d+.*Lower the rate"
    ):
        trained(dataclasses.replace(PLAN, objective=lambda logits, teacher, labels: logits.sum() * float("nan")))


def test_after_step_and_averager_are_called_every_step():
    class Count:
        module = network()
        steps = 0

        def update_parameters(self, model):
            self.steps += 1

    count, calls = Count(), []
    trained(dataclasses.replace(PLAN, averager=count, after_step=(lambda made, step: calls.append(step),)))
    assert calls == list(range(1, 16))
    assert count.steps == 15


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [1, 5, 7, 14])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_weights(tmp_path, at):
    plan, path, settings = (
        dataclasses.replace(PLAN, patience=9, validate=lambda made: 1.0),
        tmp_path / "a",
        {"rate": 0.05},
    )
    straight = trained(plan)

    def stop(state):
        if state.taken == at:
            save(path, settings, run, state)
            raise Stop

    made = network()
    run = Run(made, optimiser("sgd", made, 0.05, 0.0))
    with pytest.raises(Stop):
        fit(made, images(), run.optimiser, plan, silent, saved=stop)
    torch.manual_seed(99)
    made = nn.Sequential(*network().children())
    run = Run(made, optimiser("sgd", made, 0.05, 0.0))
    resumed = fit(made, images(), run.optimiser, plan, silent, restore(path, settings, run))
    assert same(resumed.weights, straight.weights)
    assert resumed.curves == straight.curves


def test_the_state_of_another_run_is_refused_with_the_differences(tmp_path):
    made = network()
    run = Run(made, optimiser("sgd", made, 0.05, 0.0))
    fit(
        made,
        images(),
        run.optimiser,
        PLAN,
        silent,
        saved=keeper(tmp_path / "a", {"rate": 0.05, "seed": 1}, run, seconds=0),
    )
    with pytest.raises(CompressError, match=r"left by another run: rate was 0.05 and is 0.1\. Give the same settings"):
        restore(tmp_path / "a", {"rate": 0.1, "seed": 1}, run)


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"1234567890")
    made = network()
    with pytest.raises(CompressError, match=r"is damaged.*Remove it"):
        restore(tmp_path / "a", {}, Run(made, optimiser("sgd", made, 0.05, 0.0)))
