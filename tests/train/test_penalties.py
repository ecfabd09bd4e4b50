"""Pulls to zero: their proximal steps by hand, and the exact zeros that only some of them make."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress.train.constraints import max_norm
from compress.train.penalties import (
    Slice,
    proximal_groups,
    proximal_l1,
    proximal_scales,
    shrink,
    shrink_group,
    squares,
)


def test_squares_are_half_the_sum_of_squared_weights_and_leave_biases_and_norms_alone():
    made = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    made[0].weight.data = torch.tensor([[3.0, 4.0]])
    loss = squares(made, 0.1)
    assert loss.item() == pytest.approx(0.1 / 2 * 25)
    loss.backward()
    assert torch.allclose(made[0].weight.grad, 0.1 * made[0].weight)
    assert made[0].bias.grad is None and made[1].weight.grad is None


def test_shrinking_worked_by_hand():
    tensor = torch.tensor([2.0, -0.5, 0.3, -0.3, 0.0])
    shrink(tensor, 0.4)
    assert tensor.tolist() == pytest.approx([1.6, -0.1, 0, 0, 0])


def test_shrinking_a_group_worked_by_hand():
    # channel 0 holds 3 and 4 (length 5), channel 1 0.1 and 0 (length 0.1), in two tensors of one number each
    pieces = [torch.tensor([[3.0], [0.1]]), torch.tensor([[4.0], [0.0]])]
    shrink_group(pieces, 1.0)
    kept = 1 - math.sqrt(2) / 5
    assert pieces[0].flatten().tolist() == pytest.approx([3 * kept, 0])
    assert pieces[1].flatten().tolist() == pytest.approx([4 * kept, 0])


@given(
    values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=6),
    threshold=st.floats(0.01, 2),
    seed=st.integers(0, 99),
)
def test_a_proximal_step_is_the_lowest_point_of_its_own_definition(values, threshold, seed):
    start = torch.tensor(values, dtype=torch.float64)[None]
    nearby = torch.randn(200, len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight = math.sqrt(len(values))
    for step, penalty in (
        (shrink, lambda v: v.abs().sum(1)),
        (lambda v, t: shrink_group([v], t), lambda v: weight * v.norm(dim=1)),
    ):
        found = start.clone()
        step(found, threshold)

        def cost(v, penalty=penalty):
            return (v - start).square().sum(1) / 2 + threshold * penalty(v)

        for size in (1e-3, 1e-1, 1.0):
            assert (cost(found + size * nearby) >= cost(found) - 1e-12).all()


def trained(after=None, loss=None, steps=300, rate=0.05):
    """A line through data that two of six inputs explain."""
    chance = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, generator=chance)
    targets = inputs[:, :1] * 2 - inputs[:, 1:2] + 0.05 * torch.randn(64, 1, generator=chance)
    made = nn.Linear(6, 1, bias=False)
    nn.init.constant_(made.weight, 0.3)
    optimiser = torch.optim.SGD(made.parameters(), lr=rate, momentum=0.9)
    pull = after(made, optimiser) if after else lambda network, step: None
    for step in range(steps):
        optimiser.zero_grad()
        total = (made(inputs) - targets).square().mean() + (loss(made) if loss else 0)
        total.backward()
        optimiser.step()
        pull(made, step + 1)
    return made.weight.detach().flatten()


def test_l1_makes_exact_zeros_where_l2_makes_none():
    l1 = trained(lambda made, optimiser: proximal_l1(made, optimiser, 0.6))
    l2 = trained(loss=lambda made: squares(made, 0.2))
    assert (l1[2:] == 0).all() and (l1[:2] != 0).all()
    assert (l2 != 0).all()
    assert l2.norm() < trained().norm()


def test_a_proximal_step_uses_the_rate_of_the_moment():
    made = nn.Linear(1, 1, bias=False)
    nn.init.constant_(made.weight, 1.0)
    optimiser = torch.optim.SGD(made.parameters(), lr=0.5)
    after = proximal_l1(made, optimiser, 0.2)
    after(made, 1)
    assert float(made.weight) == pytest.approx(0.9)
    optimiser.param_groups[0]["lr"] = 0.1
    after(made, 2)
    assert float(made.weight) == pytest.approx(0.88)


def test_a_frozen_weight_is_not_pulled():
    made = nn.Linear(1, 1, bias=False)
    made.weight.requires_grad_(False)
    before, optimiser = made.weight.clone(), torch.optim.SGD(made.parameters(), lr=0.5)
    for after in (
        proximal_l1(made, optimiser, 0.2),
        proximal_groups([[Slice(made.weight, 0, ((0,),))]], optimiser, 0.2),
        max_norm(0.01),
    ):
        after(made, 1)
        assert torch.equal(made.weight, before)


def test_only_batch_norm_scales_are_pulled_by_their_penalty():
    made = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    made[1].weight.data = torch.tensor([0.05, 1.0])
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    proximal_scales(made, torch.optim.SGD(made.parameters(), lr=0.5), 0.2)(made, 1)
    assert made[1].weight.tolist() == pytest.approx([0.0, 0.9])
    assert all(torch.equal(before[name], made.state_dict()[name]) for name in before if name != "1.weight")


def test_groups_shrink_together_across_tensors_and_axes():
    first, second = torch.zeros(3, 2), torch.zeros(2, 3)
    first[0], second[:, 0] = 1.0, 1.0  # channel 0: four ones
    first[2, 0] = 0.01  # channel 1 lies at 2: almost nothing
    slices = [Slice(first, 0, ((0,), (2,))), Slice(second, 1, ((0,), (2,)))]
    first[1] = 5.0  # in no group
    optimiser = torch.optim.SGD([first.requires_grad_(), second.requires_grad_()], lr=0.5)
    proximal_groups([slices], optimiser, 0.2)(nn.Identity(), 1)
    kept = 1 - 0.1 * 2 / 2
    assert first[0].tolist() == pytest.approx([kept] * 2) and second[:, 0].tolist() == pytest.approx([kept] * 2)
    assert not first[2].any() and not second[:, 2].any()
    assert first[1].tolist() == [5, 5]
