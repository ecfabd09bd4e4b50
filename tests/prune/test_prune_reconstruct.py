import copy
import dataclasses
import gc
import re
import weakref
from pathlib import Path

import pytest
import torch
from digits_like import base, resources
from pydantic import ValidationError
from random_cnn import random_cnn
from torch import nn
from torch.nn import functional as F

from compress import checkpoint as files
from compress.build import build
from compress.data.load import load_for
from compress.data.normalise import normalise
from compress.errors import CompressError, ResourceError, UsageError
from compress.pipeline import Resources
from compress.prune.elimination import elimination_scores
from compress.prune.groups import find_groups, lost
from compress.prune.least_squares import RIDGE
from compress.prune.narrow import remove
from compress.prune.playback import Playback
from compress.prune.recalibrate import recalibrate
from compress.prune.refit import refit
from compress.prune.step import Prune

SHAPE = (3, 12, 12)


def images(count=96, shape=SHAPE):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def distance(network, whole, seen):
    with torch.no_grad():
        return float((network(seen) - whole(seen)).norm() / whole(seen).norm())


def lively(network):
    """In inference mode, its batch norms with statistics and scales that are not all alike."""
    recalibrate(network, images().split(32))
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return network.eval()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Plain(nn.Sequential):
    def __init__(self):
        layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


def first_group(network, exclude=(), shape=SHAPE):
    groups, _ = find_groups(network, shape, exclude)
    return groups[0]


def test_a_copy_of_another_channel_goes_and_the_answers_stay():
    network = lively(Plain())
    with torch.no_grad():
        for tensor in (*network[0].parameters(), *network[1].parameters(), *network[1].buffers()):
            if tensor.dim():
                tensor[5] = tensor[2]
    group = first_group(network)
    scores, refusals = elimination_scores(network, [group], images().split(32))
    assert refusals == ()
    assert int(scores[group].argmin()) in (2, 5)
    going = lost({group: [int(scores[group].argmin())]})
    solved, _ = refit(network, going, SHAPE, images().split(32))
    assert distance(solved, network, images()) < 5 * RIDGE < 0.1 < distance(remove(network, going), network, images())


class TwoBranches(nn.Module):
    """Two branches that are added; what one does the other could do as well, but for the rectifier that never cuts."""

    def __init__(self, normed):
        super().__init__()
        self.inner, self.back = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 1)
        self.other = nn.Conv2d(3, 5, 3, padding=1, bias=not normed)
        self.norm = nn.BatchNorm2d(5) if normed else nn.Identity()
        nn.init.constant_(self.inner.bias, 20.0)

    def forward(self, x):
        return (self.back(F.relu(self.inner(x))) + self.norm(self.other(x))).mean((2, 3))


@pytest.mark.parametrize("normed", [True, False])
def test_a_layer_makes_up_for_what_is_missing_in_the_other_summand(normed):
    network = lively(TwoBranches(normed))
    going = lost({first_group(network): [0, 1, 2, 3, 4]})
    alone, refusals = refit(network, going, SHAPE, images().split(32), exclude=("other",))
    assert [(each.layer, each.reason) for each in refusals] == [("other", "not solved again: it was excluded")]
    both, refusals = refit(network, going, SHAPE, images().split(32))
    assert refusals == ()
    assert distance(both, network, images()) < distance(alone, network, images()) / 10


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.up, self.down = nn.Conv2d(3, 6, 3, groups=3), nn.Linear(6, 24), nn.Linear(24, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        return self.head((x + self.down(F.gelu(self.up(x)))).mean((1, 2)))


def test_linear_layers_with_channels_last_are_solved_for():
    network = ChannelsLast().eval()
    group = next(group for group in find_groups(network, SHAPE)[0] if group.name == "up")
    scores, _ = elimination_scores(network, [group], images().split(32))
    going = lost({group: scores[group].argsort()[:12].tolist()})
    solved, _ = refit(network, going, SHAPE, images().split(32))
    assert distance(solved, network, images()) < distance(remove(network, going), network, images()) / 3


class Odd(nn.Module):
    """A layer called twice, one that cannot be solved for, and a weight that is of no layer."""

    def __init__(self):
        super().__init__()
        self.first, self.twice = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(6, 8, 2), nn.Conv2d(8, 4, 1, padding_mode="reflect")
        self.weight = nn.Parameter(torch.randn(4, 4, 1, 1))

    def forward(self, x):
        x = self.twice(F.relu(self.twice(F.relu(self.first(x)))))
        return F.conv2d(self.last(self.up(x)), self.weight).mean((2, 3))


def test_what_is_left_alone_is_named_with_the_reason():
    network = Odd().eval()
    groups, _ = find_groups(network, SHAPE)
    scores, unscored = elimination_scores(network, groups, images().split(32))
    assert [(each.layer, each.reason) for each in unscored] == [
        ("first", "up, which reads it, is no linear layer or 2-d convolution padded with zeros"),
        ("up", "last, which reads it, is no linear layer or 2-d convolution padded with zeros"),
    ]
    assert not scores
    _, refusals = refit(network, lost({groups[0]: [0, 1]}), SHAPE, images().split(32))
    assert [(each.layer, each.reason) for each in refusals] == [
        ("twice", "not solved again: it is called 2 times, and each call would want its own weights"),
        ("last", "not solved again: it is no linear layer or 2-d convolution padded with zeros"),
        ("conv2d_4", "not solved again: it is no module of its own"),
    ]


def test_memory_does_not_grow_with_the_number_of_images():
    network = lively(Plain())
    going = lost({first_group(network): [0, 1]})

    def tensors():
        return [each for each in gc.get_objects() if type(each) in (torch.Tensor, nn.Parameter)]

    others = {id(each): each for each in tensors()}  # of tests before this one, kept so that no new one has their place

    def held(count):
        """The most bytes that tensors hold at once between two layers, and how many batches are alive in the end."""
        most, shown = 0, []

        def measure(*news):
            nonlocal most
            own = [each for each in tensors() if id(each) not in others]
            most = max(most, sum({each.data_ptr(): each.nbytes for each in own}.values()))

        def batches():
            for _ in range(count):
                part = images(32)
                shown.append(weakref.ref(part))
                yield part

        refit(network, going, SHAPE, batches(), progress=measure)
        return most, sum(each() is not None for each in shown)

    (few, alive), (many, left) = held(2), held(6)
    assert alive == left == 0
    assert many - few < images(32).nbytes


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_answer_no_worse_than_with_recalibration(seed):
    network, seen, unseen = random_cnn(seed), images(128), images(160)[128:]
    groups, _ = find_groups(network, SHAPE)
    with torch.no_grad():
        ranked, _ = elimination_scores(network, groups, seen.split(32))
    going = lost({group: own.argsort()[: len(own) // 2].tolist() for group, own in ranked.items()})
    solved, _ = refit(network, going, SHAPE, seen.split(32))
    plain = copy.deepcopy(remove(network, going))
    recalibrate(plain, seen.split(32))
    assert distance(solved, network, unseen) <= distance(plain, network, unseen)


def test_a_trained_network_keeps_more_than_with_recalibration_and_says_so():
    digits = files.load(Path(__file__).parents[2] / "models" / "digits.safetensors")
    data = load_for(digits.architecture, digits.dataset, "digits").learning
    pixels, labels = next(data.validation.batches(len(data.validation)))
    seen, whole = normalise(pixels, data.spec.preprocessing), build(digits)

    def measured(**fields):
        pruned = Prune(macs=0.3, images=512, round_to=4, **fields)(digits, Resources(data))
        network = build(pruned)
        with torch.no_grad():
            top1 = (network(seen).argmax(1) == labels).float().mean().item()
        return distance(network, whole, seen), top1, pruned

    far, worse, _ = measured()
    near, better, pruned = measured(reconstruct=True)
    assert near < far / 2
    assert better >= worse
    after, before = re.findall(r"\d\.\d{3}", pruned.history[-1].notes[-1])
    assert float(after) < float(before)


def test_the_same_seed_gives_the_same_bytes_and_the_input_stays():
    start = base()
    before = {name: tensor.clone() for name, tensor in start.weights.items()}
    step = Prune(channel_ratio=0.4, reconstruct=True, images=32)
    one, same = step(start, resources()), step(start, resources())
    other = step(start, Resources(resources().data, seed=1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert all(torch.equal(start.weights[name], tensor) for name, tensor in before.items())


def test_excluded_layers_keep_their_weights():
    start = base()
    pruned = Prune(channel_ratio=0.2, reconstruct=True, images=32, exclude=("linear",))(start, resources())
    assert all(
        torch.equal(pruned.weights[name], start.weights[name]) for name in start.weights if name.startswith("linear")
    )


@pytest.mark.parametrize("given", [{"criterion": "l1"}, {"allocation": "global"}])
def test_what_reconstruct_decides_itself_cannot_be_given(given):
    with pytest.raises(ValidationError, match="leave out criterion and allocation"):
        Prune(macs=0.5, reconstruct=True, **given)


def test_zeros_that_are_to_stay_are_not_filled():
    start = base()
    sparse = dataclasses.replace(start, architecture=dataclasses.replace(start.architecture, masked=("conv1",)))
    with pytest.raises(
        CompressError, match=r"would fill the zeros that sparsify left in conv1.* Prune the checkpoint before it"
    ):
        Prune(macs=0.5, reconstruct=True)(sparse, resources())


def test_without_images_it_says_how_to_give_them():
    with pytest.raises(UsageError, match="prune needs images: give --data NAME"):
        Prune(macs=0.5, reconstruct=True)(base())


def test_a_network_that_answers_nan_is_refused():
    network = Plain().eval()
    network[0].weight.data[0] = torch.nan
    with pytest.raises(CompressError, match="NaN or infinite on calibration images"):
        elimination_scores(network, [first_group(network)], images().split(32))


class InPlace(nn.Module):
    """A residual block that writes over its activations."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(self.stem(x), inplace=True)
        y = self.inner(x)
        y += x
        left, right = F.relu_(y).chunk(2, 1)
        return self.head(torch.cat([right, left], 1).mean((2, 3)))


def test_a_forward_pass_in_pieces_answers_as_one_does(tmp_path):
    network, batches = InPlace().eval(), images().split(40)
    pieces = Playback(network, SHAPE, tmp_path / "activations")
    for each in batches:
        pieces.show(each)
    with torch.no_grad():
        for stop in range(len(pieces.calls) + 1):
            held = [pieces.play(batch, stop) for batch in range(3)]
        for each, found in zip(batches, held, strict=True):
            assert torch.allclose(found[pieces.calls[-1].name], network(each), atol=1e-6)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    pieces = Playback(InPlace().eval(), SHAPE, tmp_path / "activations")
    (tmp_path / "activations" / "0-x.npy").mkdir()
    with pytest.raises(ResourceError, match=r"cannot write .*0-x\.npy"):
        pieces.show(images(2))


class Counting(nn.Module):
    """Does one thing more as long as it has all its channels."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.inner(x)
        return self.head(x.tanh() if x.shape[1] == 6 else x).mean((2, 3))


def test_a_network_that_counts_its_channels_is_refused():
    with pytest.raises(CompressError, match="makes other calls once it has fewer channels"):
        refit(Counting().eval(), {"inner": ((), (1,)), "head": ((1,), ())}, SHAPE, images().split(32))
