"""Accuracy on the images a network does not learn from."""

import torch
from tiny_training import Everything, task
from torch import nn

from compress.train.validation import validation_accuracy


class Brightest(nn.Module):
    """Answers with the mean of each channel as it was in bytes: the classes are brighter in theirs."""

    def forward(self, x):
        deviation = torch.tensor([0.229, 0.224, 0.225])
        mean = torch.tensor([0.485, 0.456, 0.406])
        return x.mean((2, 3)) * deviation + mean


def test_it_is_the_share_of_right_answers_in_per_cent():
    data = task()
    images, labels = next(data.validation.batches(1000))
    expected = 100 * float((images.float().mean((2, 3)).argmax(1) == labels).float().mean())
    assert expected > 50
    for batch in (3, 256):
        assert abs(validation_accuracy(Brightest(), data, batch=batch) - expected) < 1e-4


def test_statistics_are_used_and_left_as_they_are():
    network = Everything().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    validation_accuracy(network, task())
    assert not network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
