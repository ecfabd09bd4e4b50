"""Work in a process that can be killed: forked, so that only its parent, which computes nothing, has to load torch."""

import multiprocessing

import torch
import torchvision.transforms.v2  # noqa: F401  # here, and not once in every process

import compress.train.training  # noqa: F401

FORK = multiprocessing.get_context("fork")


def start(work):
    """A process at `work(progress)`, and the end of a pipe where it says a byte at every sign of progress."""
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_compute, args=(work, there))
    process.start()
    there.close()
    return process, here


def finish(work):
    """Let a process do all of `work(progress)`."""
    process, _ = start(work)
    process.join()
    assert process.exitcode == 0


def _compute(work, there):
    torch.set_num_threads(1)
    work(lambda *told: there.send_bytes(b"."))
