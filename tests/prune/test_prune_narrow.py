import pytest
import torch
from random_cnn import random_cnn
from torch import nn

from compress.errors import CompressError
from compress.prune.masks import mask
from compress.prune.narrow import LAYOUTS, layout_of, narrow, remove, size_of

CASES = [
    (lambda: nn.Conv1d(6, 8, 3), (4, 5), {"weight": (5, 4, 3), "bias": (5,)}),
    (lambda: nn.Conv2d(6, 8, 3, bias=False), (4, 5), {"weight": (5, 4, 3, 3)}),
    (lambda: nn.Conv2d(6, 8, 3, groups=2), (3, 4), {"weight": (4, 3, 3, 3), "bias": (4,)}),
    (lambda: nn.Conv2d(6, 6, 3, groups=6), (4, 4), {"weight": (4, 1, 3, 3), "bias": (4,)}),
    (lambda: nn.Conv2d(6, 12, 3, groups=6), (4, 8), {"weight": (8, 1, 3, 3), "bias": (8,)}),
    (lambda: nn.ConvTranspose2d(6, 8, 2), (4, 5), {"weight": (4, 5, 2, 2), "bias": (5,)}),
    (lambda: nn.ConvTranspose2d(6, 12, 2, groups=3), (4, 8), {"weight": (4, 4, 2, 2), "bias": (8,)}),
    (lambda: nn.Linear(6, 8), (4, 5), {"weight": (5, 4), "bias": (5,)}),
    (lambda: nn.BatchNorm1d(6), (4, 4), {"weight": (4,), "running_var": (4,)}),
    (lambda: nn.BatchNorm2d(6, affine=False), (4, 4), {"running_mean": (4,)}),
    (lambda: nn.InstanceNorm2d(6, affine=True), (4, 4), {"weight": (4,), "bias": (4,)}),
    (lambda: nn.GroupNorm(3, 6), (4, 4), {"weight": (4,), "bias": (4,)}),
    (lambda: nn.PReLU(6), (4, 4), {"weight": (4,)}),
]
IDS = [f"{type(make()).__name__}-{size}" for make, size, _ in CASES]


@pytest.mark.parametrize(("make", "size", "shapes"), CASES, ids=IDS)
def test_a_narrowed_layer_is_the_layer_made_with_fewer_channels(make, size, shapes):
    network = narrow(nn.Sequential(make()).double(), {"0": size})
    state = network[0].state_dict()
    assert size_of(network[0]) == size
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert all(tensor.dtype == torch.float64 for tensor in state.values() if tensor.is_floating_point())
    images = torch.rand(2, size[0], 5, 5, dtype=torch.float64)
    if isinstance(network[0], (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm)):
        assert network(images).shape[:2] == (2, size[1])


def test_every_kind_of_layer_with_a_layout_is_tried_here():
    assert {type(layout_of(make())) for make, _, _ in CASES} == {type(layout) for layout in LAYOUTS.values()}
    assert all(any(isinstance(make(), kind) for make, _, _ in CASES) for kind in LAYOUTS)


def test_the_dense_widths_change_nothing():
    network = random_cnn(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    narrow(network, {name: size_of(layer) for name, layer in network.named_modules() if layout_of(layer)})
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        ({"con": (3, 4)}, r"layer 'con', which this network does not have \(it has conv\)"),
        ({"act": (3, 4)}, "a ReLU cannot be narrowed"),
        ({"conv": (3, 9)}, r"has \(3, 8\) \(inputs, outputs\) and cannot be narrowed to \(3, 9\)"),
        ({"conv": (3, 0)}, r"cannot be narrowed to \(3, 0\)"),
        ({"conv": (3, -3)}, r"cannot be narrowed to \(3, -3\)"),
        ({"conv": (3, 10**30)}, r"cannot be narrowed to \(3, 10{30}\)"),
        ({"grouped": (4, 6)}, "it loses the same channels, in whole blocks, on both sides"),
        ({"grouped": (5, 5)}, "in whole blocks"),
        ({"norm": (7, 6)}, "on both sides"),
    ],
)
def test_widths_that_no_network_like_this_can_have_are_refused(widths, words):
    network = nn.Sequential()
    network.add_module("conv", nn.Conv2d(3, 8, 3))
    network.add_module("act", nn.ReLU())
    network.add_module("grouped", nn.Conv2d(8, 8, 3, groups=4))
    network.add_module("norm", nn.BatchNorm2d(8))
    with pytest.raises(CompressError, match=words) as caught:
        narrow(network, widths)
    assert caught.value.exit_code == 3


def test_removing_keeps_the_weights_of_the_others_and_the_original_as_it_was():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    lost = {"0": ([], [1, 4]), "1": ([1, 4], [1, 4]), "2": ([4, 1], [])}
    narrowed = remove(network, lost)
    kept = [0, 2, 3, 5]
    assert torch.equal(narrowed[0].weight, before["0.weight"][kept])
    assert torch.equal(narrowed[1].running_mean, before["1.running_mean"][kept])
    assert torch.equal(narrowed[2].weight, before["2.weight"][:, kept])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_narrowed_equals_masked_and_a_weight_off_by_a_hundredth_does_not():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3), nn.Conv2d(6, 4, 3)).double()
    lost = {"0": ([], [2, 3]), "2": ([2, 3], [2, 3]), "3": ([2, 3], [])}
    images = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    narrowed, masked = remove(network, lost), mask(network, lost)
    assert masked[3].weight.shape == network[3].weight.shape
    # 54 products a sum, twice, in float64: rounding stays below 54 * 54 * 2^-53.
    allowed = 54 * 54 * 2**-53 * masked(images).abs().max()
    assert (narrowed(images) - masked(images)).abs().max() <= allowed
    assert (narrowed(images) - network(images)).abs().max() > 1e9 * allowed
    with torch.no_grad():
        narrowed[3].weight[0, 0] *= 1.01
    assert (narrowed(images) - masked(images)).abs().max() > allowed
