"""QAT in one go, killed with SIGKILL at random points and started again; prints the digest of both files.

Each start is a forked child, so that only one process has to load torch; the parent computes nothing.
"""

import os
import random
import signal
import sys
from pathlib import Path

import torch
import torchvision.transforms.v2  # noqa: F401  # here, and not once in every child
from tiny_training import USER, checkpoint, task

import compress.quantize.qat
import compress.train.training  # noqa: F401
from compress import checkpoint as files
from compress import storage
from compress.pipeline import Resources, partial_of, steps_folder
from compress.quantize.qat_step import QAT

STEPS, KILLS = 18, 3
STEP = QAT(epochs=3, images=32, training={"batch": 14, "averaging": "ema", "save_minutes": 0.0})


def start(data, given, path):
    """A child that quantizes, saves, and writes a byte at every sign of progress; (process, its bytes)."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    try:
        torch.set_num_threads(1)
        progress = lambda *told: os.write(write, b".")  # noqa: E731
        files.save(STEP(given, Resources(data, user=USER, partial=partial_of(path), progress=progress)), path)
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def main(folder, seed):
    data = task()
    given = checkpoint(data)
    given.fingerprint  # noqa: B018  # computed before any fork
    straight, killed = folder / "straight.safetensors", folder / "killed.safetensors"
    child, _ = start(data, given, straight)
    assert os.waitpid(child, 0)[1] == 0
    for count in random.Random(seed).sample(range(1, STEPS), KILLS):
        child, read = start(data, given, killed)
        for _ in range(count):
            if not os.read(read, 1):
                break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert steps_folder(partial_of(killed)).is_dir()
    child, _ = start(data, given, killed)
    assert os.waitpid(child, 0)[1] == 0
    print(storage.digest_file(straight), storage.digest_file(killed))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
