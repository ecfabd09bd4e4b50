"""A trained network for another task."""

import dataclasses

import pytest
import torch
from tiny_training import USER, Everything, checkpoint, resources, same, task

from compress.build import build
from compress.errors import CompressError
from compress.train.step import Train
from compress.train.transfer import head_of, new_head, train_only, unfreeze

DIGITS = task(channels=1, classes=("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", "fc"),
        ("vgg11", "classifier.6"),
        ("squeezenet1_1", "classifier.1"),
        ("mobilenet_v3_small", "classifier.3"),
        ("densenet121", "classifier"),
    ],
)
def test_the_head_of_a_torchvision_network_is_found(name, head):
    from torchvision import models

    with torch.device("meta"):
        assert head_of(models.get_model(name)) == head


def test_a_network_without_layers_has_no_head():
    with pytest.raises(CompressError, match="no head to train or replace"):
        head_of(torch.nn.ReLU())


def test_a_new_head_changes_the_last_layer_and_the_number_of_classes_alone():
    start = checkpoint(DIGITS)
    architecture, weights = new_head(start.architecture, start.weights, 7, 1, None)
    assert architecture.arguments == {"num_classes": 7}
    assert weights["linear.weight"].shape == (7, 64)
    others = {name for name in start.weights if not name.startswith("linear.")}
    assert same({name: start.weights[name] for name in others}, {name: weights[name] for name in others})
    build(dataclasses.replace(start, architecture=architecture, weights=weights))


def test_a_new_head_is_drawn_by_its_seed_also_for_as_many_classes():
    start = checkpoint(DIGITS)
    heads = [new_head(start.architecture, start.weights, 4, seed, None)[1]["linear.weight"] for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], start.weights["linear.weight"])


def test_a_narrowed_head_gets_its_classes_and_keeps_its_inputs():
    start = checkpoint(DIGITS)
    narrowed = dataclasses.replace(start.architecture, widths={"linear": (64, 4)})
    architecture, _ = new_head(narrowed, start.weights, 7, 1, None)
    assert architecture.widths == {"linear": (64, 7)}


def test_a_network_of_the_users_own_cannot_be_given_a_new_head():
    start = checkpoint(task())
    with pytest.raises(CompressError, match="user:everything fixes its number of classes in its own code"):
        new_head(start.architecture, start.weights, 7, 1, USER)


def test_training_on_other_classes_needs_a_new_head_and_makes_the_checkpoint_one_for_them():
    start, other = checkpoint(DIGITS, "all"), task(channels=1, seed=1)
    with pytest.raises(CompressError, match="answers for 4"):
        Train(epochs=1, batch=16)(start, resources(other))
    after = Train(epochs=1, batch=16, new_head=True, patience=1)(start, resources(other))
    assert (after.dataset, after.trained_on) == (other.spec, "train")
    assert after.weights["linear.bias"].shape == (3,)
    again = Train(epochs=1, batch=16, new_head=True)(start, resources(DIGITS))
    assert again.trained_on == "all"


def test_the_head_alone_learns_and_frozen_norms_keep_their_statistics():
    start = checkpoint(DIGITS)
    after = Train(epochs=1, batch=16, layers="head")(start, resources(DIGITS))
    changed = {name for name in start.weights if not torch.equal(start.weights[name], after.weights[name])}
    assert changed == {"linear.weight", "linear.bias"}


def learning(network):
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def test_layers_are_given_back_from_the_head_to_the_first():
    network = Everything()
    after = unfreeze(network, "head", per_epoch=10, epochs=3)
    assert learning(network) == ["head.weight", "head.bias"]
    counts = []
    for taken in (9, 10, 25, 30, 99):
        after(network, taken)
        counts.append(len(learning(network)))
    assert counts == sorted(counts) and counts[0] == 2 and counts[1] == counts[1]
    assert 2 < counts[1] < counts[2] < counts[3] == counts[4] == len([*network.parameters()])
    train_only(network, "head")
    after(network, 10)
    assert learning(network)[0].startswith("blocks.1")


def test_gradual_training_goes_on_after_a_stop_as_if_it_had_not(tmp_path):
    data, steps = task(), Train(epochs=3, batch=16, layers="gradual", unfreeze_epochs=2, save_minutes=0)
    straight = steps(checkpoint(data), resources(data))

    class Stopped(Exception):
        pass

    def stop(task, done, total, detail):
        if done == 9:
            raise Stopped

    partial = tmp_path / "a.partial.safetensors"
    with pytest.raises(Stopped):
        steps(checkpoint(data), resources(data, partial=partial, progress=stop))
    resumed = steps(checkpoint(data), resources(data, partial=partial))
    assert same(resumed.weights, straight.weights)
