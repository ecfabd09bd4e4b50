"""What a training keeps to go on from, and when: nothing is lost, and nobody goes on with another run's."""

import dataclasses
import errno

import pytest
import torch
from tiny_training import DATA, QUIET, START, TEACHER, resources, same, trained

from compress import checkpoint as files
from compress import pipeline
from compress.errors import CompressError, ResourceError
from compress.train.step import Train


def test_fp16_scales_the_loss_and_goes_on_bit_for_bit(tmp_path):
    settings = {"precision": "fp16", "save_minutes": 0.0, "epochs": 3}
    straight = trained(**settings)
    assert not same(straight.weights, trained(epochs=3).weights)
    assert same(stopped_and_resumed(tmp_path, 7, **settings).weights, straight.weights)


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_an_average_goes_on_bit_for_bit(tmp_path, averaging):
    settings = {"averaging": averaging, "swa_start": 0.3, "save_minutes": 0.0, "epochs": 3, "optimiser": "adamw"}
    assert same(stopped_and_resumed(tmp_path, 12, **settings).weights, trained(**settings).weights)


class Stopped(Exception):
    pass


def stopped_and_resumed(folder, at, **settings):
    step, partial = Train(**{**QUIET, **settings}), folder / "a.partial.safetensors"

    def stop(task, done, total, detail):
        if done == at:
            raise Stopped

    with pytest.raises(Stopped):
        step(START, resources(DATA, teacher=TEACHER, partial=partial, progress=stop))
    assert partial.exists()
    result = step(START, resources(DATA, teacher=TEACHER, partial=partial))
    pipeline.keep(result, folder / "a.safetensors")
    assert [path.name for path in folder.iterdir()] == ["a.safetensors"]
    return result


def test_a_result_that_could_not_be_written_is_not_trained_again(tmp_path, monkeypatch):
    step, whole = Train(**{**QUIET, "save_minutes": 0.0}), files.save

    def full(result, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "save", full)
    with pytest.raises(OSError, match="No space"):
        pipeline.run([step], START, resources(DATA), tmp_path)
    monkeypatch.setattr(files, "save", whole)
    taken = []
    again = resources(DATA, progress=lambda task, done, total, detail: taken.append(done))
    result = pipeline.run([step], START, again, tmp_path)
    assert len(taken) <= 1
    assert same(result.weights, trained().weights)
    assert [path.name for path in tmp_path.iterdir()] == ["01-train.safetensors"]


def test_a_rate_that_diverges_stops_with_the_last_weights_kept_and_the_advice(tmp_path):
    partial = tmp_path / "a.partial.safetensors"
    step = Train(**{**QUIET, "rate": 99.0, "optimiser": "sgd", "epochs": 30, "save_minutes": 0.0})
    with pytest.raises(
        CompressError, match=r"diverged: .*Lower the rate.*The last weights kept before are in (.*)\."
    ) as caught:
        step(START, resources(DATA, partial=partial))
    kept = files.load(tmp_path / "a.before-divergence.safetensors")
    assert str(tmp_path / "a.before-divergence.safetensors") in str(caught.value)
    assert kept.architecture == START.architecture and not same(kept.weights, START.weights)
    assert kept.history[-1].notes[0].startswith("unfinished: training diverged")
    assert not partial.exists()
    rarely = step.model_copy(update={"save_minutes": 60.0})
    for kept_in in (None, partial):  # where nothing was kept, there is nothing to name
        with pytest.raises(CompressError, match=r"diverged: .*The checkpoint given is unchanged\.$"):
            rarely(START, resources(DATA, partial=kept_in))
    assert not partial.exists()


@pytest.mark.parametrize("change", ["settings", "seed", "data", "weights"])
def test_a_state_of_another_run_is_refused_and_the_differences_listed(tmp_path, change):
    partial = tmp_path / "a.partial.safetensors"

    def stop(task, done, total, detail):
        raise Stopped

    with pytest.raises(Stopped):
        Train(**QUIET)(START, resources(DATA, partial=partial, progress=stop))
    other = dataclasses.replace(DATA, spec=dataclasses.replace(DATA.spec, digest="sha256:other"))
    step = Train(**{**QUIET, "rate": 0.01} if change == "settings" else QUIET)
    data = other if change == "data" else DATA
    changed = dataclasses.replace(START, weights={**START.weights, "head.bias": torch.ones(3)})
    start = changed if change == "weights" else START
    expected = {
        "settings": "rate was 0.05 and is 0.01",
        "seed": "seed was 0 and is 1",
        "data": "data was sha256:.* and is sha256:other",
        "weights": "checkpoint was sha256:.* and is sha256:",
    }[change]
    with pytest.raises(CompressError, match=f"left by another run: {expected}"):
        step(start, resources(data, partial=partial, seed=int(change == "seed")))


def test_how_often_a_state_is_kept_is_no_part_of_what_the_run_is(tmp_path):
    result = stopped_and_resumed(tmp_path, 3, save_minutes=0.0)
    assert same(result.weights, trained(save_minutes=5.0).weights)


def test_a_place_that_cannot_be_written_is_found_out_before_the_first_step(tmp_path):
    seen = []
    with pytest.raises(ResourceError, match=r"cannot write .*Choose a place that exists"):
        Train(**QUIET)(
            START, resources(DATA, partial=tmp_path / "none" / "a", progress=lambda *told: seen.append(told))
        )
    assert not seen
