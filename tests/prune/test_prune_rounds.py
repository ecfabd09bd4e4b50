"""Pruning in rounds with training between."""

import dataclasses
import json

import pytest
import torch
from digits_like import base, resources
from pydantic import ValidationError
from torch import nn

from compress import checkpoint as files
from compress import storage
from compress.architecture import Architecture
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.errors import CompressError
from compress.interleave import Effort
from compress.networks import UserNetwork
from compress.pipeline import keep
from compress.prune import rounds
from compress.prune.schedules import cubic
from compress.prune.sparsify import Sparsify
from compress.prune.step import Prune
from compress.train.step import Train

QUICK = Train(batch=32, rate=0.02, augmentation="none")
STEP = Prune(channel_ratio=0.5, round_to=1, schedule="cubic", rounds=3, epochs=3, training=QUICK, recalibrate=False)


def observed(monkeypatch, fail_at=None):
    """The widths at which each round was trained, and for how long."""
    seen = []
    whole = rounds.train

    def spied(training, current, *rest, **options):
        seen.append((current.architecture.widths["conv1"][1], training.epochs))
        if len(seen) == fail_at:
            raise KeyboardInterrupt
        return whole(training, current, *rest, **options)

    monkeypatch.setattr(rounds, "train", spied)
    return seen


def test_each_round_takes_what_the_schedule_says_and_trains(monkeypatch):
    seen = observed(monkeypatch)
    pruned = STEP(base(), resources())
    width = base().weights["conv1.weight"].shape[0]
    assert seen == [(round(width * (1 - cubic(0, 0.5, done / 3))), 1) for done in (1, 2, 3)]
    record = pruned.history[-1]
    assert len(record.figures["train_loss"]) == 3
    assert "trained for 3 epochs, in 3 rounds" in record.notes
    assert len(pruned.history) == len(base().history) + 1, "one record for all rounds"
    untrained = Prune(channel_ratio=0.5, round_to=1, recalibrate=False)(base())
    assert pruned.architecture == untrained.architecture
    assert not torch.equal(pruned.weights["linear.weight"], untrained.weights["linear.weight"])


def test_epochs_are_shared_among_the_rounds(monkeypatch):
    seen = observed(monkeypatch)
    STEP.model_copy(update={"epochs": 5, "rounds": 2, "schedule": "linear"})(base(), resources())
    assert [epochs for _, epochs in seen] == [2, 3]


def test_one_shot_trains_once_after_all_is_gone(monkeypatch):
    seen = observed(monkeypatch)
    STEP.model_copy(update={"schedule": "one-shot"})(base(), resources())
    assert seen == [(base().weights["conv1.weight"].shape[0] // 2, 3)]


def test_a_killed_run_goes_on_in_the_round_it_was_in_to_the_same_weights(monkeypatch, tmp_path):
    whole = STEP(base(), resources())
    given = dataclasses.replace(resources(), partial=tmp_path / "out.partial.safetensors")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        observed(patch, fail_at=3)
        STEP(base(), given)
    assert (given.partial.with_suffix(".steps") / "02-round.safetensors").exists()
    with pytest.raises(CompressError, match=r"02-round\.safetensors was left by another run\. .* or remove .*\.steps "):
        STEP.model_copy(update={"criterion": "l1"})(base(), given)
    seen = observed(monkeypatch)
    result = STEP(base(), given)
    assert result.fingerprint == whole.fingerprint
    assert len(seen) == 1
    keep(result, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]


def test_a_file_that_no_round_left_is_not_gone_on_with(tmp_path):
    given = dataclasses.replace(resources(), partial=tmp_path / "out.partial.safetensors")
    files.save(base(), storage.folder(given.partial.with_suffix(".steps")) / "01-round.safetensors")
    with pytest.raises(CompressError, match=r"01-round\.safetensors was left by another run"):
        STEP(base(), given)


def killed(*arguments, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize("structure", ["channels", "blocks"])
def test_a_killed_run_for_a_latency_keeps_to_what_it_measured(monkeypatch, tmp_path, structure):
    monkeypatch.setattr("compress.prune.latency.EFFORT", Effort(seconds=0.2))
    step = Prune(structure=structure, latency=0.8, batch=8, schedule="linear", rounds=2, epochs=2, training=QUICK)
    given = dataclasses.replace(resources(), partial=tmp_path / "out.partial.safetensors")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rounds, "train", killed)
        step(base(), given)
    left = given.partial.with_suffix(".steps") / "00-latency.json"
    measured = json.loads(left.read_text())
    with pytest.raises(CompressError, match=r"00-latency\.json was left by another run"):
        step.model_copy(update={"batch": 4})(base(), given)
    left.write_text(left.read_text().replace(next(iter(measured["going"])), "elsewhere"))
    with pytest.raises(CompressError, match=r"00-latency\.json was left by another run"):
        step(base(), given)
    left.write_text(json.dumps(measured))
    monkeypatch.setattr("compress.prune.latency.interleave", None)  # whoever measures again fails
    result = step(base(), given)
    assert measured["note"] in result.history[-1].notes
    if structure == "blocks":
        assert result.architecture.removed == tuple(measured["going"])
    else:
        removed = sum(measured["going"].values())
        assert result.history[-1].notes[0].startswith(f"{removed} of ")


def test_zeros_outlive_the_rounds():
    sparse = Sparsify(sparsity=0.6, recalibrate=False)(base(), resources())
    trained, untrained = (
        STEP.model_copy(update={"schedule": "one-shot", "epochs": epochs})(sparse, resources()) for epochs in (2, 0)
    )
    zeros = {layer: untrained.weights[f"{layer}.weight"] == 0 for layer in sparse.architecture.masked}
    assert sum(int(places.sum()) for places in zeros.values()) > 1000
    for layer, places in zeros.items():
        assert torch.equal(trained.weights[f"{layer}.weight"] == 0, places)
    dense = STEP(base(), resources())
    assert not any((dense.weights[f"{layer}.weight"] == 0).any() for layer in zeros)
    gradual = STEP(sparse, resources())
    assert sum(int((gradual.weights[f"{layer}.weight"] == 0).sum()) for layer in zeros) > 1000


def test_blocks_go_in_rounds_too(monkeypatch):
    seen, whole = [], rounds.train

    def spied(training, current, *rest, **options):
        seen.append(current.architecture.removed)
        return whole(training, current, *rest, **options)

    monkeypatch.setattr(rounds, "train", spied)
    step = Prune(structure="blocks", macs=0.3, schedule="linear", rounds=2, epochs=2, training=QUICK, recalibrate=False)
    pruned = step(base(), resources())
    assert [len(removed) for removed in seen] == [1, 2]
    assert seen[1][:1] == seen[0]
    assert pruned.architecture.removed == seen[1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule": "linear"}, "linear takes its share while the network trains: give epochs"),
        (
            {"schedule": "cubic", "epochs": 2},
            "5 rounds are each trained: give at least as many epochs, or fewer rounds",
        ),
        ({"rounds": 3, "epochs": 3}, "rounds are of a schedule, linear or cubic"),
        ({"training": {"rate": 0.1}}, "settings of a training are given and nothing is trained: give epochs"),
        ({"epochs": 2, "training": {"epochs": 2}}, "give epochs beside training"),
        ({"epochs": 2, "training": {"new_head": True}}, "new_head and layers change what learns"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        Prune(macs=0.5, **fields)


def test_the_result_is_rebuilt_from_its_file(tmp_path):
    pruned = STEP(base(), resources())
    files.save(pruned, tmp_path / "pruned.safetensors")
    images = torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(build(files.load(tmp_path / "pruned.safetensors"))(images), build(pruned)(images))


class Uneven(nn.Module):
    """Two channels of the stem make one group and sixteen another; the first is none any more once it is down to one."""

    def __init__(self):
        super().__init__()
        self.stem, self.few, self.many = nn.Conv2d(1, 18, 3, 2, 1), nn.Conv2d(18, 2, 1), nn.Conv2d(18, 16, 1)
        self.linear = nn.Linear(18, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.linear((x + torch.cat([self.few(x), self.many(x)], 1)).mean((2, 3)))


@pytest.mark.parametrize("schedule", ["linear", "cubic"])
def test_rounds_end_where_one_shot_does_also_where_a_group_ends_on_the_way(schedule):
    user = UserNetwork(Uneven, "uneven.py:Uneven", "sha256:0")
    architecture = Architecture("user", user.name, {}, (1, 32, 32), code=user.digest)
    given, own = Checkpoint(architecture, Uneven().state_dict()), dataclasses.replace(resources(), user=user)
    settings = {"channel_ratio": 0.5, "round_to": 1, "recalibrate": False}
    widths = Prune(**settings)(given, own).architecture.widths
    assert widths["stem"][1] == 9
    step = Prune(schedule=schedule, rounds=4, epochs=4, training=QUICK, **settings)
    assert step(given, own).architecture.widths == widths
