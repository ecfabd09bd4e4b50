import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from compress import networks
from compress.architecture import Architecture


def create(depth):
    return networks.create(Architecture("compress", f"resnet{depth}", {"num_classes": 10}, (3, 32, 32)))


@pytest.mark.parametrize("depth, millions", [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_the_parameters_are_those_of_the_paper(depth, millions):
    """He et al., 2015, table 6."""
    count = sum(parameter.numel() for parameter in create(depth).parameters())
    assert round(count / 1e6, 1 if depth == 110 else 2) == millions


def test_resnet20_has_the_multiply_accumulates_it_says():
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        create(20)(torch.zeros(1, 3, 32, 32))
    assert round(counter.get_total_flops() / 2e6) == 41


def reference(weights, x):
    """The network written out from its description, with none of its modules."""

    def conv_norm(x, place, number, stride=1):
        prefix = f"{place}bn{number}."
        x = F.conv2d(x, weights[f"{place}conv{number}.weight"], stride=stride, padding=1)
        parts = [weights[prefix + part] for part in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, scale, shift = (part[:, None, None] for part in parts)
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = conv_norm(x, "", 1).relu()
    for stage, planes in ((1, 16), (2, 32), (3, 64)):
        for block in range(3):
            place, halve = f"layer{stage}.{block}.", stage > 1 and block == 0
            y = conv_norm(x, place, 1, 2 if halve else 1).relu()
            y = conv_norm(y, place, 2)
            if halve:
                x = x[:, :, ::2, ::2]
                zeros = torch.zeros(len(x), planes // 4, *x.shape[2:])
                x = torch.cat([zeros, x, zeros], 1)
            x = (x + y).relu()
    return x.mean((2, 3)) @ weights["linear.weight"].T + weights["linear.bias"]


def test_resnet20_computes_what_its_description_says_from_the_names_published_weights_have():
    network = create(20)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if "bn" in name and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    with torch.no_grad():
        logits, expected = network(images), reference(network.state_dict(), images)
    # 20 layers of float32 sums of up to 576 terms: relative rounding well below 1e-4.
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    assert not (logits * 1.01 - expected).abs().max() < 1e-4 * expected.abs().max()
