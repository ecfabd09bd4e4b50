"""Following a teacher inside."""

import pytest
import torch
from torch import nn

from compress.errors import CompressError, UsageError
from compress.train.features import attention, hint, listen, matching

ZERO = lambda logits, teacher, labels: logits.sum() * 0  # noqa: E731  # a task that asks for nothing


def test_hint_is_the_mean_squared_difference():
    assert float(hint(torch.tensor([1.0, 4.0]), torch.tensor([3.0, 3.0]))) == pytest.approx(2.5)


def test_attention_worked_by_hand():
    # squares summed over channels: 9 + 16 = 25 and 0; 0 and 1: directions (1, 0) and (0.6, 0.8)
    student = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    teacher = torch.tensor([[[[0.6**0.5, 0.8**0.5]]]])
    assert float(attention(student, teacher)) == pytest.approx(0.4**2 + 0.8**2, rel=1e-5)
    assert float(attention(student, 7 * student)) == pytest.approx(0, abs=1e-6)


def network(width, size=6):
    return nn.Sequential(nn.Conv2d(1, width, 7 - size + 1), nn.Flatten(), nn.LazyLinear(2))


def matched(student, teacher, kind, layers=("0",)):
    heard = listen(student, layers), listen(teacher, layers)
    images = torch.rand(3, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    logits = student(images)
    with torch.no_grad():
        teacher(images)
    return matching(ZERO, *heard, weight=2.0, kind=kind)(logits, None, torch.zeros(3))


def test_the_loss_is_the_weighted_distance_of_what_the_layers_answered_and_reaches_the_student_alone():
    torch.manual_seed(0)
    student, teacher = network(4), network(4)
    images = torch.rand(3, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    loss = matched(student, teacher, "hint")
    assert loss.item() == pytest.approx(2 * (student[0](images) - teacher[0](images)).square().mean().item(), rel=1e-5)
    loss.backward()
    assert student[0].weight.grad.abs().sum() > 0
    assert teacher[0].weight.grad is None


def test_attention_takes_a_narrower_student_and_hint_does_not():
    assert matched(network(2), network(4), "attention").item() > 0
    with pytest.raises(CompressError, match=r"layer 0 answers \(3, 2, 6, 6\) in the student.*or use attention"):
        matched(network(2), network(4), "hint")


def test_maps_of_another_size_cannot_be_compared():
    with pytest.raises(CompressError, match=r"attention cannot compare them\. Name layers with maps of the same size"):
        matched(network(2, 6), network(2, 5), "attention")


def test_a_layer_without_a_map_cannot_be_compared():
    with pytest.raises(CompressError, match="the layer 2 answers"):
        matched(network(2), network(2), "attention", layers=("2",))


def test_an_unknown_layer_is_named():
    with pytest.raises(UsageError, match="unknown layer '5'"):
        listen(network(2), ("5",))
