import dataclasses
import gzip

import onnx
import pydantic
import pytest
import torch
from digits_like import base, resources
from onnx import numpy_helper
from torch import nn

from compress import checkpoint as files
from compress import recipe
from compress.architecture import Architecture, Quantization
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.errors import CompressError, UsageError
from compress.export import export
from compress.fold.step import Fold
from compress.importing import import_checkpoint
from compress.networks import UserNetwork
from compress.pipeline import Resources
from compress.prune.schedules import cubic
from compress.prune.sparsify import Sparsify
from compress.prune.step import Prune
from compress.prune.weights import lowest
from compress.prune.zeroing import Zeroing, gzipped
from compress.quantize.step import Quantize
from compress.train.step import Train

SHORT = Train(batch=32, rate=0.02, weight_decay=0.01)
LAYERS = ("conv1", "conv2", "block2.conv1", "block2.conv2", "conv3", "block3.conv1", "block3.conv2", "linear")


def sparsify(checkpoint=None, given=None, **settings):
    settings.setdefault("recalibrate", False)
    return Sparsify(**settings)(checkpoint or base(), given or resources())


def zeros(checkpoint, layers=LAYERS):
    return {layer: checkpoint.weights[f"{layer}.weight"] == 0 for layer in layers}


def count(checkpoint, layers=LAYERS):
    return sum(int(places.sum()) for places in zeros(checkpoint, layers).values())


def size(layers=LAYERS):
    return sum(base().weights[f"{layer}.weight"].numel() for layer in layers)


def same(one, other):
    return one.weights.keys() == other.weights.keys() and all(
        torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items()
    )


def at_least(more, fewer):
    """Whether all that is zero in one checkpoint is zero in the other."""
    return all(bool(zeros(more)[layer][places].all()) for layer, places in zeros(fewer).items())


def fours(checkpoint, layer):
    """How many of each four input channels are zero."""
    weight = checkpoint.weights[f"{layer}.weight"].movedim(1, -1)
    return (weight.reshape(-1, 4) == 0).sum(1)


@pytest.mark.parametrize("criterion", ["magnitude", "lamp", "taylor"])
@pytest.mark.parametrize("sparsity", [0.001, 0.5, 0.937])
def test_the_sparsity_reached_is_exact_to_one_weight(criterion, sparsity):
    made = sparsify(sparsity=sparsity, criterion=criterion, images=64)
    assert count(made) == round(sparsity * size())
    assert set(made.architecture.masked) == {layer for layer, places in zeros(made).items() if places.any()}
    assert f"{count(made):,} of {size():,} weights" in made.history[-1].notes[0]


def test_uniform_takes_the_same_share_of_every_layer():
    made = sparsify(sparsity=0.7, allocation="uniform")
    assert [count(made, (layer,)) for layer in LAYERS] == [round(0.7 * size((layer,))) for layer in LAYERS]
    assert made.architecture.masked == LAYERS


def test_a_small_layer_is_not_rounded_to_nothing():
    def small():
        return nn.Sequential(
            nn.Conv2d(1, 2, 1), nn.Conv2d(2, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
        )

    user = UserNetwork(small, "small", "sha256:0")
    start = Checkpoint(Architecture("user", "small", {}, (1, 8, 8), code=user.digest), small().state_dict())
    step = Sparsify(sparsity=0.8, allocation="uniform", recalibrate=False)
    made = step(start, dataclasses.replace(resources(), user=user))
    assert count(made, ("0", "1", "4")) == 1 + round(0.8 * 288) + round(0.8 * 160)


def test_nothing_but_the_zeroed_weights_changes():
    made, before = sparsify(sparsity=0.5), base()
    for name, tensor in made.weights.items():
        layer = name.removesuffix(".weight")
        expected = before.weights[name].masked_fill(zeros(made)[layer], 0) if layer in LAYERS else before.weights[name]
        assert torch.equal(tensor, expected)


def test_the_smallest_weights_go_wherever_they_are():
    made = sparsify(sparsity=0.5)
    gone = max(base().weights[f"{layer}.weight"][places].abs().max() for layer, places in zeros(made).items())
    kept = min(base().weights[f"{layer}.weight"][~places].abs().min() for layer, places in zeros(made).items())
    assert gone <= kept


def test_recalibrating_changes_the_statistics_alone():
    made, plain = sparsify(sparsity=0.5, recalibrate=True, images=32), sparsify(sparsity=0.5)
    changed = {name for name, tensor in made.weights.items() if not torch.equal(tensor, plain.weights[name])}
    assert changed
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)
    assert "batch norms recalibrated on 32 images" in made.history[-1].notes


def test_two_of_every_four_input_channels_are_zero_and_layers_without_fours_are_refused():
    made = sparsify(structure="2:4")
    assert made.architecture.masked == LAYERS[1:]
    assert all(bool((fours(made, layer) == 2).all()) for layer in LAYERS[1:])
    (refusal,) = made.history[-1].refusals
    assert (refusal.layer, refusal.reason) == ("conv1", "its input channels (1) are not a multiple of four")
    assert not zeros(made)["conv1"].any()


def test_zeroing_more_later_is_zeroing_it_at_once_and_less_later_changes_nothing():
    half, most = sparsify(sparsity=0.5), sparsify(sparsity=0.8)
    assert same(sparsify(half, sparsity=0.8), most)
    assert same(sparsify(most, sparsity=0.5), most)
    assert same(sparsify(half, sparsity=0.5), half)


def test_patterns_compose_in_either_order():
    first = sparsify(sparsity=0.3)
    made = sparsify(first, structure="2:4")
    assert at_least(made, first)
    assert all(bool((fours(made, layer) >= 2).all()) for layer in LAYERS[1:])
    assert "conv1" in made.architecture.masked
    again = sparsify(made, sparsity=0.75)
    assert at_least(again, made)
    assert count(again) == round(0.75 * size())


def test_zeros_stay_zero_through_training_folding_int8_and_the_exported_file(tmp_path):
    sparse = sparsify(sparsify(structure="2:4"), sparsity=0.7)
    trained = SHORT.model_copy(update={"epochs": 1})(sparse, resources())
    assert all(torch.equal(zeros(trained)[layer], places) for layer, places in zeros(sparse).items())
    assert not same(trained, sparse)
    quantized = Quantize(images=32)(Fold()(trained), resources())
    export(quantized, tmp_path / "int8.onnx", "onnx")
    tensors = {each.name: numpy_helper.to_array(each) for each in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert quantized.architecture.masked == sparse.architecture.masked == LAYERS
    for layer in LAYERS:
        stored = torch.tensor(tensors[f"{layer}.weight.integer"])
        assert stored.dtype == torch.int8
        assert bool((stored[zeros(sparse)[layer]] == 0).all()), layer
        assert stored.any()
        if layer != "conv1":
            assert bool(((stored.movedim(1, -1).reshape(-1, 4) == 0).sum(1) >= 2).all()), layer


def test_without_its_mask_a_network_trains_its_zeros_away():
    sparse = sparsify(sparsity=0.6)
    unmasked = dataclasses.replace(sparse, architecture=dataclasses.replace(sparse.architecture, masked=()))
    assert not at_least(SHORT.model_copy(update={"epochs": 1})(unmasked, resources()), sparse)


def test_whoever_breaks_the_pattern_by_removing_channels_is_told():
    sparse = sparsify(structure="2:4")
    narrowed = Prune(channel_ratio=0.5, recalibrate=False, round_to=4)(sparse, resources())
    [said] = [note for note in narrowed.history[-1].notes if "two zeros in every four" in note]
    broken = [layer for layer in LAYERS[1:] if not (fours(narrowed, layer) >= 2).all()]
    assert len(broken) > 3
    assert said.startswith(f"{', '.join(broken[:3])} and {len(broken) - 3} other layers had two zeros in every four")
    again = sparsify(narrowed, structure="2:4")
    assert all((fours(again, layer) >= 2).all() for layer in LAYERS[1:])
    random = sparsify(sparsity=0.3)
    unbroken = Prune(channel_ratio=0.5, recalibrate=False, round_to=4)(random, resources())
    assert not any("two zeros in every four" in note for note in unbroken.history[-1].notes)


def test_zeros_outlive_the_removal_of_channels():
    sparse = sparsify(sparsity=0.6)
    narrowed = Prune(channel_ratio=0.5, recalibrate=False, exclude=("conv3",))(sparse, resources())
    kept = narrowed.weights["block3.conv1.weight"]
    assert kept.shape[0] == 32
    rows = [row for row in sparse.weights["block3.conv1.weight"] if any(torch.equal(row, other) for other in kept)]
    assert len(rows) == 32, "each channel that stays keeps its zeros"
    trained = SHORT.model_copy(update={"epochs": 1})(narrowed, resources())
    assert at_least(trained, narrowed)


@pytest.mark.parametrize(
    ("schedule", "averaging"), [("linear", "none"), ("cubic", "ema"), ("cubic", "swa"), ("one-shot", "ema")]
)
def test_a_network_that_trains_meanwhile_ends_with_exactly_as_many_zeros(schedule, averaging):
    training = SHORT.model_copy(update={"averaging": averaging})
    made = sparsify(sparsity=0.9, schedule=schedule, rounds=3, epochs=2, climb=0.8, training=training)
    assert count(made) == round(0.9 * size())
    assert made.history[-1].notes[-1] == "kept epoch 2 of 2"
    assert len(made.history[-1].figures["train_loss"]) == 2


def test_weights_zeroed_before_stay_zero_while_more_go():
    before = sparsify(structure="2:4")
    made = sparsify(before, sparsity=0.9, schedule="cubic", rounds=2, epochs=1, training=SHORT)
    assert at_least(made, before)
    assert count(made) == round(0.9 * size())


def test_weights_go_in_rounds_by_the_schedule_and_stay_gone_whatever_a_step_does():
    network, counts = torch.nn.Sequential(torch.nn.Linear(20, 50)), []

    def choose(network, done):
        return lowest({"0": network[0].weight.detach().abs()}, round(1000 * cubic(0.1, 0.9, done)))

    zeroing = Zeroing(choose, rounds=4, steps=8)
    for taken in range(10):
        network[0].weight.data += 0.01
        zeroing(network, taken)
        counts.append(int((network[0].weight == 0).sum()))
    # 0.9 - 0.8 (1 - k / 4)^3 of 1000, for k = 0 ... 4, two steps each.
    assert counts == [100, 100, 562, 562, 800, 800, 888, 888, 900, 900]


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [2, 7])
def test_a_gradual_run_that_was_killed_goes_on_to_the_same_weights(tmp_path, at):
    settings = {"sparsity": 0.9, "schedule": "cubic", "rounds": 3, "epochs": 2}
    straight = sparsify(**settings, training=SHORT)
    training = SHORT.model_copy(update={"save_minutes": 0.0})

    def progress(task, done, total, detail):
        if done == at:
            raise Killed

    partial = dataclasses.replace(resources(), partial=tmp_path / "state")
    with pytest.raises(Killed):
        sparsify(given=dataclasses.replace(partial, progress=progress), **settings, training=training)
    with pytest.raises(CompressError, match=r"left by another run: sparsify was .*0\.9.* and is .*0\.8"):
        sparsify(given=partial, **{**settings, "sparsity": 0.8}, training=training)
    assert same(sparsify(given=partial, **settings, training=training), straight)


def test_taylor_needs_images_and_keeps_what_the_loss_hangs_on():
    with pytest.raises(UsageError, match="the Taylor criterion needs images: give --data"):
        sparsify(given=Resources(), sparsity=0.5, criterion="taylor")
    network = build(sparsify(sparsity=0.5, criterion="taylor", images=64))
    other = build(sparsify(sparsity=0.5))
    assert not torch.equal(network.conv3.weight, other.conv3.weight)


def test_one_who_expects_a_smaller_file_is_told_both_sizes(tmp_path):
    made = sparsify(sparsity=0.9)
    content = b"".join(tensor.contiguous().numpy().tobytes() for tensor in made.weights.values())
    assert gzipped(made.weights) == len(gzip.compress(content, compresslevel=6, mtime=0))
    assert gzipped(made.weights) < 0.3 * gzipped(base().weights)
    note = made.history[-1].notes[1]
    assert note.startswith("no file gets smaller by this")
    assert "488 KB in all; gzip makes" in note
    for name, checkpoint in (("a", base()), ("b", made)):
        files.save(checkpoint, tmp_path / name)
    assert (tmp_path / "b").stat().st_size >= (tmp_path / "a").stat().st_size


def test_what_is_excluded_keeps_its_weights():
    made = sparsify(sparsity=0.9, exclude=("block2", "linear"))
    assert count(made, ("block2.conv1", "block2.conv2", "linear")) == 0
    assert count(made) == round(0.9 * (size() - size(("block2.conv1", "block2.conv2", "linear"))))
    with pytest.raises(CompressError, match=r"no weight of this network can be zeroed\. conv1: it was excluded; conv2"):
        sparsify(sparsity=0.5, exclude=LAYERS)


def test_a_quantized_or_folded_checkpoint_is_refused_with_the_order_that_works():
    quantized = dataclasses.replace(
        base(), architecture=dataclasses.replace(base().architecture, quantization=Quantization("t", "o", ()))
    )
    with pytest.raises(CompressError, match="quantization comes last: prune and train the checkpoint from before it"):
        sparsify(quantized, sparsity=0.5)
    with pytest.raises(CompressError, match="folding comes after pruning and training"):
        sparsify(Fold()(base()), sparsity=0.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give sparsity"),
        ({"sparsity": 0.99}, r"sparsity 0.99 is above `largest`, the share a layer may lose \(0.98\)"),
        ({"structure": "2:4", "sparsity": 0.5}, "2:4 takes half of every layer at once: leave out sparsity"),
        ({"structure": "2:4", "schedule": "cubic", "epochs": 1}, "2:4 takes half of every layer at once"),
        ({"structure": "2:4", "criterion": "lamp"}, "2:4 takes the same share of every layer"),
        ({"structure": "2:4", "allocation": "uniform"}, "2:4 takes the same share of every layer"),
        ({"sparsity": 0.5, "criterion": "lamp", "allocation": "uniform"}, "lamp compares layers"),
        ({"sparsity": 0.5, "schedule": "cubic"}, "cubic takes its share while the network trains: give epochs"),
        ({"sparsity": 0.5, "epochs": 1, "training": {"epochs": 3}}, "give epochs beside training"),
        ({"sparsity": 0.5, "training": {"rate": 0.1}}, "nothing is trained: give epochs"),
        ({"sparsity": 0.5, "epochs": 1, "training": {"new_head": True}}, "do that in a train step of its own"),
        ({"sparsity": 0.5, "epochs": 1, "training": {"layers": "head"}}, "do that in a train step of its own"),
        ({"sparsity": 0.5, "epochs": 1, "schedule": "cubic", "training": {"patience": 2}}, "leave patience out"),
        ({"sparsity": float("nan")}, "finite number"),
    ],
)
def test_settings_that_do_not_go_together_say_why(settings, words):
    with pytest.raises(pydantic.ValidationError, match=words):
        Sparsify(**settings)


@pytest.mark.parametrize("settings", [{"structure": "2:4"}, {"sparsity": 0.5, "epochs": 3, "training": {"rate": 0.01}}])
def test_a_step_reads_back_what_it_writes(settings):
    step = Sparsify(**settings)
    assert Sparsify(**step.model_dump(mode="json")) == step
    assert ("rate" in step.model_dump()["training"]) == (step.epochs > 0), "a training that is not is not told of"


def test_a_recipe_may_zero_and_needs_no_quotes_for_the_pattern(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "network: {name: digits_cnn, weights: untrained}\ndata: {name: digits}\n"
        "steps:\n  - sparsify: {structure: 2:4}\n  - sparsify: {sparsity: 0.8, epochs: 2, training: {rate: 0.01}}\n"
    )
    first, second = recipe.read(tmp_path / "r.yaml").sequence
    assert first == Sparsify(structure="2:4")
    assert second.training == Train(rate=0.01)


def test_without_training_a_trained_resnet20_keeps_most_of_its_answers(cifar10, resnet20_weights):
    from compress.data.load import load
    from compress.data.normalise import normalise

    data = load(f"npz:{cifar10}")
    start = import_checkpoint(resnet20_weights, "resnet20", data.spec)

    def top1(checkpoint):
        images, labels = next(data.test.batches(1000))
        with torch.inference_mode():
            answers = build(checkpoint)(normalise(images, data.spec.preprocessing)).argmax(1)
        return 100 * float((answers == labels).double().mean())

    given = Resources(data=data.learning)
    plain, measured = (sparsify(start, given, structure="2:4", recalibrate=each) for each in (False, True))
    assert top1(measured) > top1(start) - 6
    assert top1(measured) > top1(plain) + 5
