from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import networks
from compress.architecture import Architecture
from compress.errors import CompressError
from compress.macs import macs
from compress.prune.allocation import (
    ALLOCATIONS,
    CLOSE,
    Bounds,
    cost_of,
    for_cost,
    for_ratio,
    lowest,
    too_small,
    uniform,
)
from compress.prune.groups import Group, Member, find_groups, lost
from compress.prune.narrow import remove
from compress.prune.step import Prune


def group(name, channels, width=1):
    places = tuple(tuple(range(channel * width, (channel + 1) * width)) for channel in range(channels))
    return Group((Member(name, "outputs", places), Member(f"{name}.next", "inputs", places)))


@pytest.fixture(scope="module")
def resnet():
    network = networks.create(Architecture("compress", "resnet20", {"num_classes": 10}, (3, 32, 32)))
    groups, _ = find_groups(network, (3, 32, 32))
    generator = torch.Generator().manual_seed(0)
    return network, {group: torch.rand(group.channels, generator=generator) for group in groups}


def test_the_step_offers_every_allocation():
    assert set(get_args(Prune.model_fields["allocation"].annotation)) == {*ALLOCATIONS, "sensitivity"}


@settings(max_examples=200, deadline=None)
@given(
    channels=st.integers(1, 200),
    width=st.integers(1, 12),
    round_to=st.integers(1, 32),
    largest=st.floats(0.05, 0.95),
    wanted=st.floats(0, 300),
)
def test_what_stays_of_a_group_is_a_multiple_within_the_bounds(channels, width, round_to, largest, wanted):
    some, bounds = group("a", channels, width), Bounds(round_to, largest)
    count = bounds.nearest(some, wanted)
    assert 0 <= count <= bounds.most(some) < channels
    assert count <= largest * channels + 1e-6
    assert count == 0 or (channels - count) * width % round_to == 0


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(ALLOCATIONS)),
    sizes=st.lists(st.integers(2, 64), min_size=1, max_size=6),
    ratio=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_an_allocation_asks_for_about_the_share_it_was_given_and_more_for_more(name, sizes, ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {group(f"g{i}", size): torch.rand(size, generator=generator) for i, size in enumerate(sizes)}
    wanted = ALLOCATIONS[name](scores, ratio)
    assert sum(wanted.values()) == pytest.approx(ratio * sum(sizes), abs=1 + 1e-6)
    more = ALLOCATIONS[name](scores, min(1, ratio + 0.1))
    assert all(more[some] >= wanted[some] for some in scores)


def test_global_takes_from_the_group_whose_scores_are_low_beside_its_own_mean():
    even, uneven = group("even", 4), group("uneven", 4)
    scores = {even: torch.tensor([100.0, 101, 99, 100]), uneven: torch.tensor([1.0, 0.1, 0.1, 3])}
    assert ALLOCATIONS["global"](scores, 0.25) == {even: 0, uneven: 2}
    assert ALLOCATIONS["uniform"](scores, 0.25) == {even: 1, uneven: 1}
    assert ALLOCATIONS["global"]({even: torch.zeros(4)}, 0.5) == {even: 2}, "of equals the first"


def test_the_lowest_scores_go_and_the_first_of_equals():
    some, none = group("a", 5), group("b", 3)
    scores = {some: torch.tensor([2.0, 1, 1, 3, 1]), none: torch.zeros(3)}
    assert lowest(scores, {some: 2, none: 0}) == {some: (1, 2)}


def test_a_group_with_nothing_to_give_is_refused_by_name():
    scores = {group("a", 8): torch.rand(8), group("b", 16): torch.rand(16), group("c", 2, width=4): torch.rand(2)}
    assert {some.name for some in for_ratio(uniform, scores, Bounds(8, 0.9), 0.5)} == {"b"}
    assert [(refusal.layer, refusal.reason) for refusal in too_small(scores, Bounds(8, 0.9))] == [
        ("a", "has 8 channels, and a multiple of 8 has to stay"),
        ("c", "has 8 channels, and a multiple of 8 has to stay"),
    ]
    assert [(refusal.layer, refusal.reason) for refusal in too_small(scores, Bounds(8, 0.4))][1] == (
        "b",
        "has 16 channels, and a multiple of 8 has to stay, of at least 60%",
    )


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_the_share_of_macs_is_that_of_the_narrowed_network(resnet, ratio):
    network, scores = resnet
    counts = for_ratio(uniform, scores, Bounds(1, 0.9), ratio)
    narrowed = remove(network, lost(lowest(scores, counts)))
    share = macs(narrowed, (3, 32, 32)) / macs(network, (3, 32, 32))
    assert cost_of(network, (3, 32, 32))(counts) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("name", ALLOCATIONS)
@pytest.mark.parametrize("share", [0.9, 0.75, 0.5, 0.4])
@pytest.mark.parametrize("round_to", [1, 8])
def test_a_share_of_the_macs_is_reached_and_a_step_fewer_would_not_reach_it(resnet, name, share, round_to):
    network, scores = resnet
    cost, bounds = cost_of(network, (3, 32, 32)), Bounds(round_to, 0.9)
    counts = for_cost(ALLOCATIONS[name], scores, bounds, share, cost)
    assert cost(counts) <= share + CLOSE
    assert cost({some: max(0, count - round_to) for some, count in counts.items()}) > share


def test_half_the_macs_of_a_cifar_resnet_are_half_its_inner_channels(resnet):
    network, scores = resnet
    counts = for_cost(uniform, scores, Bounds(8, 0.9), 0.5, cost_of(network, (3, 32, 32)))
    assert list(counts.values()) == [8, 8, 8, 16, 16, 16, 32, 32, 32]


def test_a_share_out_of_reach_names_the_nearest_and_the_multiple_that_reaches_it(resnet):
    network, scores = resnet
    cost = cost_of(network, (3, 32, 32))
    with pytest.raises(
        CompressError, match=r"0\.600 is the least .* multiples of 16 .*: round_to 8 reaches it"
    ) as caught:
        for_cost(uniform, scores, Bounds(16, 0.9), 0.5, cost)
    assert caught.value.exit_code == 3
    with pytest.raises(
        CompressError, match=r"0\.50\d is the least .* at most 50% of a group .*: largest 0\.82 reaches it\."
    ):
        for_cost(uniform, scores, Bounds(1, 0.5), 0.2, cost)
    with pytest.raises(
        CompressError,
        match=r"0\.600 is the least .*: neither other multiples nor larger shares reach it, ask for 0\.61",
    ):
        for_cost(uniform, scores, Bounds(16, 0.9), 0.02, cost)
    assert for_cost(uniform, scores, Bounds(1, 0.82), 0.2, cost)
    assert for_cost(uniform, scores, Bounds(1, 0.5), 0.51, cost)
