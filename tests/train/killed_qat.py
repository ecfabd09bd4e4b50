"""QAT in one go, killed with SIGKILL at random points and started again; prints the digest of both files."""

import random
import signal
import sys
from pathlib import Path

import torch
from forked import finish, start
from tiny_training import USER, checkpoint, task

import compress.quantize.qat  # noqa: F401  # here, and not once in every process
from compress import storage
from compress.pipeline import Resources, keep, partial_of, steps_folder
from compress.quantize.qat_step import QAT

STEPS, KILLS = 18, 3
STEP = QAT(epochs=3, images=32, training={"batch": 14, "averaging": "ema", "save_minutes": 0.0})


def main(folder, seed):
    data = task()
    given = checkpoint(data)
    given.fingerprint  # noqa: B018  # computed before any fork
    straight, killed = folder / "straight.safetensors", folder / "killed.safetensors"

    def quantizing(path):
        def work(progress):
            keep(STEP(given, Resources(data, user=USER, partial=partial_of(path), progress=progress)), path)

        return work

    finish(quantizing(straight))
    for count in random.Random(seed).sample(range(1, STEPS), KILLS):
        process, said = start(quantizing(killed))
        for _ in range(count):
            said.recv_bytes()
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert steps_folder(partial_of(killed)).is_dir()
    finish(quantizing(killed))
    print(storage.digest_file(straight), storage.digest_file(killed))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
