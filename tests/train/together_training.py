"""What each process of `torchrun` does in test_distributed: train, and save what it ends with.

together_training.py FOLDER NETWORK...
"""

import os
import signal
import sys
from pathlib import Path

import torch
from tiny_training import USER, Everything, checkpoint, task
from torch import nn

from compress import checkpoint as files
from compress.errors import CompressError
from compress.networks import UserNetwork
from compress.pipeline import Resources, partial_of
from compress.quantize.qat_step import PrepareQAT
from compress.train.step import Train

LAST = 6
MASKED = "blocks.0.conv"
SETTINGS = {"averaging": "ema", "accumulate": 2, "distillation": 0.5}
"""Of every run here: an average to keep the same everywhere, gradients to average only when they are complete."""


class Plain(Everything):
    """The same network without batch norms."""

    def __init__(self):
        super().__init__()
        self.bn = nn.Identity()
        for block in self.blocks:
            block.bn = nn.Identity()


class Dying(Everything):
    """The same network, whose second process is killed in the forward pass of a step."""

    passes = 0

    def forward(self, x):
        self.passes += self.training
        if self.passes == LAST and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


NETWORKS = {"norms": Everything, "integers": Everything, "plain": Plain, "dying": Dying}
"""Each name's network; `integers` is prepared for quantization-aware training."""


def train(path, network, batch, **settings):
    """Train that network at that batch a process, keeping the state after every step; returns the checkpoint."""
    data, make = task(), NETWORKS[network]
    start, teacher = checkpoint(data, masked=(MASKED,)), checkpoint(data)
    for name in start.weights.keys() - make().state_dict().keys():
        del start.weights[name], teacher.weights[name]
    start.weights[f"{MASKED}.weight"][:, ::2] = 0
    step = Train(
        **{"epochs": 2, "batch": batch, "rate": 0.05, "augmentation": "none", "clip": 1.0, "save_minutes": 0.0}
        | settings
    )
    resources = Resources(
        data, user=UserNetwork(make, USER.name, USER.digest), teacher=teacher, partial=partial_of(path)
    )
    return step(PrepareQAT(images=32)(start, resources) if network == "integers" else start, resources)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        path = Path(sys.argv[1]) / f"{name}.safetensors"
        try:
            result = train(path, name, 8, **SETTINGS)
        except CompressError as error:
            sys.exit(f"a process says: {error}")
        files.save(result, path.with_stem(f"{name}-{os.environ['RANK']}"))
