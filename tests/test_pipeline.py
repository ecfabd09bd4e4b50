"""Steps keep a contract, and a run continues where it was stopped."""

import dataclasses

import pytest
import torch

from compress import checkpoint as files
from compress.architecture import Architecture
from compress.checkpoint import Checkpoint
from compress.errors import CompressError, UsageError
from compress.pipeline import FOLDED, UNFOLDED, Change, Resources, Step, run


class Scale(Step):
    """Multiply every weight."""

    by: float = 2.0

    def apply(self, checkpoint, resources):
        COUNT.append(self.by)
        return Change(
            checkpoint.architecture,
            {name: tensor * self.by for name, tensor in checkpoint.weights.items()},
            notes=("scaled",),
        )


class Pretend(Step):
    """Say that the network is folded."""

    requires = (UNFOLDED,)
    promises = (FOLDED,)

    def apply(self, checkpoint, resources):
        return Change(dataclasses.replace(checkpoint.architecture, folded=()), checkpoint.weights)


class Liar(Pretend):
    """Promise a folded network and do nothing."""

    def apply(self, checkpoint, resources):
        return Change(checkpoint.architecture, checkpoint.weights)


class Vandal(Step):
    """Edit the checkpoint it was given."""

    def apply(self, checkpoint, resources):
        checkpoint.weights["a"].zero_()
        return Change(checkpoint.architecture, checkpoint.weights)


COUNT: list[float] = []


@pytest.fixture
def base():
    COUNT.clear()
    return Checkpoint(Architecture("compress", "digits_cnn", {}, (1, 8, 8)), {"a": torch.ones(3)})


def test_a_step_writes_its_settings_its_seed_and_its_parent_into_the_history(base):
    after = Scale(by=3)(base, Resources(seed=7))
    (record,) = after.history
    assert (record.step, record.settings, record.seed, record.parent, record.notes) == (
        "scale",
        {"by": 3.0},
        7,
        base.fingerprint,
        ("scaled",),
    )
    assert torch.equal(after.weights["a"], torch.full((3,), 3.0))
    assert torch.equal(base.weights["a"], torch.ones(3))


def test_what_a_step_requires_is_checked_before_it_runs(base):
    with pytest.raises(CompressError, match="pretend needs a network whose batch norms are not folded"):
        Pretend()(Pretend()(base))


def test_a_broken_promise_names_the_step(base):
    with pytest.raises(AssertionError, match="liar promised"):
        Liar()(base)


def test_a_step_that_edits_its_input_is_caught(base):
    with pytest.raises(AssertionError, match="vandal edited its input"):
        Vandal()(base)


def test_a_step_that_makes_nan_is_refused(base):
    with pytest.raises(CompressError, match="result of scale holds NaN"):
        Scale(by=float("nan"))(base)


def test_a_failing_step_is_named_with_its_number(base):
    with pytest.raises(CompressError, match=r"step 3 \(pretend\): pretend needs"):
        run([Scale(), Pretend(), Pretend()], base)


def test_no_steps_change_nothing(base):
    assert run([], base) is base


def test_a_run_continues_after_the_last_finished_step(base, tmp_path):
    first = run([Scale(by=2), Scale(by=3)], base, folder=tmp_path)
    assert COUNT == [2, 3]
    seen = []
    again = run(
        [Scale(by=2), Scale(by=3), Scale(by=5)], base, folder=tmp_path, finished=lambda *news: seen.append(news[3])
    )
    assert COUNT == [2, 3, 5]
    assert seen == [True, True, False]
    assert files.load(tmp_path / "02-scale.safetensors").fingerprint == first.fingerprint
    assert again.history[:2] == first.history


@pytest.mark.parametrize("change", ["settings", "seed", "start"])
def test_a_step_done_otherwise_is_done_again(base, tmp_path, change):
    run([Scale(by=2), Scale(by=3)], base, folder=tmp_path)
    COUNT.clear()
    start = dataclasses.replace(base, weights={"a": torch.zeros(3)}) if change == "start" else base
    run(
        [Scale(by=4 if change == "settings" else 2), Scale(by=3)],
        start,
        Resources(seed=1 if change == "seed" else 0),
        tmp_path,
    )
    assert len(COUNT) == 2


def test_a_step_is_a_frozen_value_with_no_unknown_fields():
    with pytest.raises(ValueError, match="frozen"):
        Scale().by = 3.0
    with pytest.raises(ValueError, match="Extra inputs"):
        Scale(bye=3)


def test_missing_data_says_how_to_give_it():
    with pytest.raises(UsageError, match="train needs images: give --data NAME"):
        Resources().need_data("train")
