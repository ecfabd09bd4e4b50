"""Train on digits, killed with SIGKILL at random points and started again; prints both fingerprints."""

import json
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path

from forked import finish, start
from safetensors import safe_open

from compress import checkpoint as files
from compress.architecture import Architecture
from compress.checkpoint import Checkpoint
from compress.data.load import load
from compress.networks import create
from compress.pipeline import Resources, keep, partial_of
from compress.train.step import Train

STEPS, KILLS = 24, 3
STEP = Train(epochs=3, batch=16, rate=0.01, optimiser="adamw", averaging="ema", patience=5, mixup=0.2, save_minutes=0.0)


def main(folder, seed):
    learning = load("digits").learning
    train = replace(learning.train, positions=learning.train.positions[: STEPS // 3 * 16])
    data = replace(learning, train=train, validation=replace(train, positions=train.positions[:100]))
    architecture = Architecture("compress", "digits_cnn", {"num_classes": 10}, (1, 32, 32))
    checkpoint = Checkpoint(architecture, create(architecture).state_dict(), data.spec, "train")
    checkpoint.fingerprint  # noqa: B018  # computed before any fork
    straight, killed = folder / "straight.safetensors", folder / "killed.safetensors"

    def training(path):
        def work(progress):
            keep(STEP(checkpoint, Resources(data, partial=partial_of(path), progress=progress)), path)

        return work

    finish(training(straight))
    points = sorted(random.Random(seed).sample(range(1, STEPS), KILLS))
    done = 0
    for point in points:
        process, said = start(training(killed))
        for _ in range(max(1, point - done)):
            said.recv_bytes()
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert partial_of(killed).exists() and not killed.exists()
        done = steps_taken(partial_of(killed))
    finish(training(killed))
    print(points, files.load(straight).fingerprint, files.load(killed).fingerprint)
    left = [path.name for path in folder.iterdir() if path.suffix == ".safetensors"]
    assert sorted(left) == ["killed.safetensors", "straight.safetensors"], left


def steps_taken(path):
    """How many steps a state holds."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["compress"])["taken"]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
