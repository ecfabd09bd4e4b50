"""Which device and how many threads torch computes with, and which of several processes writes."""

import os
from collections.abc import Collection

from compress.errors import ResourceError, UsageError


def use(device: str, threads: int | None) -> str:
    """Check that `device` exists (cpu, cuda or cuda:N) and give torch `threads` threads; returns the device.

    Raises UsageError for a word torch does not know, and ResourceError where the device is not there.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}: give cpu, cuda or cuda:N.") from error
    if kind.type not in ("cpu", "cuda"):
        raise UsageError(f"device {device!r} is not supported: give cpu, cuda or cuda:N.")
    if kind.type == "cuda" and (not torch.cuda.is_available() or (kind.index or 0) >= torch.cuda.device_count()):
        raise ResourceError(
            f"{device} was asked for, and torch sees {torch.cuda.device_count()} CUDA devices here. "
            "Use --device cpu, or install a CUDA build of torch and its driver."
        )
    return device


def hold(cores: Collection[int]) -> None:
    """Hold this process, and those it starts, to some of the machine's cores, numbered from 0.

    Raises ResourceError where there are no such cores, or the system cannot hold a process.
    """
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError) as error:
        words = ", ".join(map(str, sorted(cores)))
        raise ResourceError(
            f"the cores {words} were asked for, and this process cannot be held to them: there are {os.cpu_count()}, numbered from 0, "
            "and only Linux holds a process to some. Name others, or leave them out."
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes files and says what came out, of those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"
