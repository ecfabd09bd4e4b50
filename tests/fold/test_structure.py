"""Which batch norms can be folded, and why the others stay."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from compress.errors import CompressError
from compress.fold.structure import find_pairs, strip


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.plain = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding="same")
        self.after = nn.BatchNorm2d(4)
        self.shared, self.read = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm_a, self.norm_b, self.norm_c = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.twice = nn.BatchNorm2d(4)
        self.linear, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        x = functional.relu(self.after(self.plain(self.first(x))))
        x = self.norm_a(self.shared(x)) + self.norm_b(self.shared(x))
        y = self.read(x)
        x = self.norm_c(y) + y
        x = self.twice(self.twice(x))
        return self.last(self.linear(x.mean((2, 3))))


def test_pairs_are_found_and_every_other_batch_norm_is_named_with_its_reason():
    pairs, refusals = find_pairs(Net(), (3, 8, 8))
    assert pairs == (("plain", "after"), ("linear", "last"))
    reasons = {refusal.layer: refusal.reason for refusal in refusals}
    assert reasons["first"].startswith("it follows")
    assert reasons["norm_a"] == reasons["norm_b"] == "shared is called more than once"
    assert reasons["norm_c"] == "the output of read is read elsewhere too"
    assert set(reasons) == {"first", "norm_a", "norm_b", "norm_c", "twice"}


def test_a_network_without_batch_norm_has_nothing_to_fold():
    assert find_pairs(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 8, 8)) == ((), ())


class Training(nn.BatchNorm2d):
    """A batch norm that goes back to training in the middle of inference."""

    def forward(self, x):
        self.train()
        return super().forward(x)


@pytest.mark.parametrize("norm", [Training(4), nn.BatchNorm2d(4, track_running_stats=False)])
def test_a_batch_norm_with_the_statistics_of_the_batch_is_refused(norm):
    with pytest.raises(CompressError, match="the batch norm 1 normalises by the images it is given also in inference"):
        find_pairs(nn.Sequential(nn.Conv2d(3, 4, 3), norm), (3, 8, 8))


class Active(nn.BatchNorm2d):
    """A batch norm that brings its activation, as timm's do."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


class Doubling(nn.BatchNorm2d):
    """A batch norm that does more than its layers say."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_what_a_batch_norm_brings_besides_stays_and_one_that_does_more_is_left_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Active(4), nn.Conv2d(4, 4, 3), Doubling(4)).eval()
    pairs, (refusal,) = find_pairs(network, (3, 8, 8))
    assert pairs == (("0", "1"),)
    assert (refusal.layer, refusal.reason) == ("3", "it or its layer is not a plain torch module")
    (kept,) = strip(network, pairs)[1]
    assert isinstance(kept, nn.ReLU)


def test_stripping_leaves_a_bias_and_no_batch_norm():
    network = strip(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), [("0", "1")])
    assert network.state_dict().keys() == {"0.weight", "0.bias"}
    assert torch.equal(network[0].bias, torch.zeros(4))


@pytest.mark.parametrize("pair", [("0", "7"), ("7", "1"), ("1", "0")])
def test_names_that_are_not_there_are_refused(pair):
    with pytest.raises(CompressError, match="belongs to another network"):
        strip(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), [pair])
