import subprocess
import sys

import pytest
import torch
from tiny_training import task
from torch import nn

from compress.train import distributed
from compress.train.plan import layout, prepare
from compress.train.step import Train


@pytest.mark.parametrize(
    ("convolution", "device", "expected"),
    [
        (nn.Conv2d(3, 48, 1, stride=2), "cpu", torch.contiguous_format),
        (nn.Conv2d(15, 48, 1, stride=(1, 2)), "cpu", torch.contiguous_format),
        (nn.Conv2d(16, 48, 1, stride=2), "cpu", torch.channels_last),
        (nn.Conv2d(3, 48, 1), "cpu", torch.channels_last),
        (nn.Conv2d(3, 48, 3, stride=2), "cpu", torch.channels_last),
        (nn.Conv2d(3, 48, 1, stride=2), "cuda:0", torch.channels_last),
    ],
)
def test_channels_come_last_but_where_a_processor_would_write_past_a_buffer(convolution, device, expected):
    assert layout(nn.Sequential(nn.ReLU(), convolution), device) == expected


@pytest.mark.parametrize("stride", [1, 2])
def test_images_and_weights_lie_as_the_layout_says(stride):
    network = nn.Sequential(nn.Conv2d(3, 6, 1, stride=stride), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    plan = prepare(Train(batch=8), network, task(), distributed.Place(0, 1, "cpu"), seed=0).plan
    assert plan.memory_format == layout(network, "cpu")
    assert network[0].weight.is_contiguous(memory_format=plan.memory_format)


GUARDED = """
import torch
from torch import nn
from compress.train.plan import layout
torch.set_num_threads(1)
for channels in (3, 8, 15, 24):
    network = nn.Conv2d(channels, 48, 1, stride=2)
    network.to(memory_format=layout(network, "cpu"))
    images = torch.randn(8, channels, 96, 96).to(memory_format=layout(network, "cpu"))
    for _ in range(10):
        network(images).sum().backward()
        network.weight.grad = None
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's checked heap is Linux's")
def test_no_gradient_is_written_past_its_buffer():
    """Ends with abort(), where glibc's checked heap is found, if one is; in channels last, 3 channels do."""
    environment = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}
    done = subprocess.run([sys.executable, "-c", GUARDED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
