"""Train on digits, killed with SIGKILL at random points and started again; prints both fingerprints.

Each start is a forked child, so that only one process has to load torch; the parent computes nothing.
"""

import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torchvision.transforms.v2  # noqa: F401  # here, and not once in every child

import compress.train.training  # noqa: F401
from compress import checkpoint as files
from compress.architecture import Architecture
from compress.checkpoint import Checkpoint
from compress.data.load import load
from compress.networks import create
from compress.pipeline import Resources, partial_of
from compress.train.step import Train

STEPS, KILLS = 24, 3
STEP = Train(epochs=3, batch=16, rate=0.01, optimiser="adamw", averaging="ema", patience=5, mixup=0.2, save_minutes=0.0)


def start(data, checkpoint, path):
    """A child that trains, saves, and writes a byte after every step; (process, its bytes)."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    try:
        torch.set_num_threads(1)
        progress = lambda *told: os.write(write, b".")  # noqa: E731
        files.save(STEP(checkpoint, Resources(data, partial=partial_of(path), progress=progress)), path)
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def main(folder, seed):
    learning = load("digits").learning
    train = replace(learning.train, positions=learning.train.positions[: STEPS // 3 * 16])
    data = replace(learning, train=train, validation=replace(train, positions=train.positions[:100]))
    architecture = Architecture("compress", "digits_cnn", {"num_classes": 10}, (1, 32, 32))
    checkpoint = Checkpoint(architecture, create(architecture).state_dict(), data.spec, "train")
    checkpoint.fingerprint  # noqa: B018  # computed before any fork
    straight, killed = folder / "straight.safetensors", folder / "killed.safetensors"
    child, _ = start(data, checkpoint, straight)
    os.waitpid(child, 0)
    points = sorted(random.Random(seed).sample(range(1, STEPS), KILLS))
    done = 0
    for point in points:
        child, read = start(data, checkpoint, killed)
        assert len(os.read(read, 1)) == 1
        for _ in range(max(0, point - done - 1)):
            os.read(read, 1)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert partial_of(killed).exists() and not killed.exists()
        done = steps_taken(partial_of(killed))
    child, _ = start(data, checkpoint, killed)
    assert os.waitpid(child, 0)[1] == 0
    print(points, files.load(straight).fingerprint, files.load(killed).fingerprint)
    left = [path.name for path in folder.iterdir() if path.suffix == ".safetensors"]
    assert sorted(left) == ["killed.safetensors", "straight.safetensors"], left


def steps_taken(path):
    """How many steps a state holds."""
    import json

    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["compress"])["taken"]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
