"""Weights that follow the network's."""

import pytest
import torch
from torch import nn

from compress.train.averaging import EpochAverage, moving_average


def network(value):
    made = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    made[0].weight.data.fill_(value)
    made[1].running_mean.fill_(value)
    return made


def move(made, value):
    made[0].weight.data.fill_(value)
    made[1].running_mean.fill_(value)
    return made


def test_a_moving_average_worked_by_hand_statistics_included():
    made = network(9.0)
    average = moving_average(made, decay=0.15)
    for value in (1.0, 2.0, 4.0):
        average.update_parameters(move(made, value))
    # 1; then d = min(0.15, 2/11) = 0.15: 0.15 + 0.85 * 2 = 1.85; then 0.15 * 1.85 + 0.85 * 4
    expected = 0.15 * 1.85 + 0.85 * 4
    assert average.module[0].weight.item() == pytest.approx(expected)
    assert float(average.module[1].running_mean) == pytest.approx(expected)


def test_a_short_run_is_not_held_back_by_its_start():
    made = network(0.0)
    average = moving_average(made, decay=0.999)
    for value in (0.0, 1.0, 1.0):
        average.update_parameters(move(made, value))
    # d = 2/11, then 3/12
    assert average.module[0].weight.item() == pytest.approx(1 - 2 / 11 * 3 / 12)


def test_zeros_stay_zero_in_a_moving_average():
    made = network(0.0)
    average = moving_average(made, decay=0.9)
    for _ in range(3):
        average.update_parameters(made)
    assert average.module[0].weight.item() == 0


def epochs(start, values, per_epoch=2):
    batch = torch.tensor([[1.0], [3.0]])
    made = network(0.0)
    average = EpochAverage(made, per_epoch, start, lambda: [batch])
    found = []
    for value in values:
        for step in range(per_epoch):
            average.update_parameters(move(made, value if step == per_epoch - 1 else -100.0))
        found.append(average.module[0].weight.item())
    return average, found


def test_epochs_are_averaged_from_the_start_on_and_steps_within_them_are_not():
    _, found = epochs(start=4, values=(1.0, 2.0, 4.0, 9.0))
    assert found == pytest.approx([1.0, 2.0, 3.0, 5.0])


def test_the_average_gets_statistics_of_its_own():
    average, found = epochs(start=2, values=(1.0, 2.0))
    # inputs 1 and 3 times the averaged weight: mean 2w, variance (unbiased) 2 w^2
    assert float(average.module[1].running_mean) == pytest.approx(2 * found[-1])
    assert float(average.module[1].running_var) == pytest.approx(2 * found[-1] ** 2)


def test_an_average_goes_on_from_its_saved_state():
    straight, _ = epochs(start=2, values=(1.0, 2.0, 4.0))
    half, _ = epochs(start=2, values=(1.0, 2.0))
    made = network(0.0)
    other = EpochAverage(made, 2, 2, lambda: [torch.tensor([[1.0], [3.0]])])
    other.load_state_dict(half.state_dict())
    for value in (-100.0, 4.0):
        other.update_parameters(move(made, value))
    assert torch.equal(other.module[0].weight, straight.module[0].weight)
    assert int(other.steps) == 6
