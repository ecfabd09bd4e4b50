"""One training run on several processes, each with its share of every batch, as `torchrun` starts them.

After every step all processes hold the same weights and statistics: gradients are averaged before any of them
is used, and the running batch-norm statistics after. (Within a step, each batch norm sees its own process's
images.) So the arithmetic is that of one process with all the images, and what one saves is what all hold.
"""

import atexit
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as torch_distributed

from compress.errors import ResourceError
from compress.train.loop import Validate


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and the device it computes on. The first one writes files."""

    rank: int
    world: int
    device: str


def processes() -> int:
    """How many processes train together: as many as `torchrun` started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: str) -> Place:
    """Become one of the processes that `torchrun` started, or without it the only one; may be called again.

    On `cuda` each process takes the GPU of its own number, and they talk by NCCL, on a CPU by gloo. Raises
    ResourceError where there are more processes than GPUs, or something else than `torchrun` set their number.
    """
    world = processes()
    if world == 1:
        return Place(0, 1, device)
    if "LOCAL_RANK" not in os.environ:
        raise ResourceError(
            f"WORLD_SIZE says that {world} processes train together, and LOCAL_RANK does not say which of them this is. "
            "Start them with torchrun, or unset WORLD_SIZE to train in one."
        )
    on_gpu = device.startswith("cuda")
    local = int(os.environ["LOCAL_RANK"])
    if on_gpu and local >= torch.cuda.device_count():
        raise ResourceError(
            f"{world} processes were started on cuda, and this one, number {local} here, finds {torch.cuda.device_count()} GPUs. "
            "Lower --nproc-per-node to their number."
        )
    if not torch_distributed.is_initialized():
        with _together():
            torch_distributed.init_process_group("nccl" if on_gpu else "gloo")
        atexit.register(torch_distributed.destroy_process_group)
        signal.signal(signal.SIGTERM, _told_to_end)
    return Place(torch_distributed.get_rank(), world, f"cuda:{local}" if on_gpu else device)


def average_gradients(network: nn.Module) -> None:
    """Give every process the mean of all processes' gradients."""
    _average([parameter.grad for parameter in network.parameters() if parameter.grad is not None])


def average_statistics(network: nn.Module, taken: int) -> None:
    """Give every process the mean of all processes' running statistics; belongs after every step."""
    _average([buffer for buffer in network.buffers() if buffer.is_floating_point()])


def one_score(validate: Validate, place: Place) -> Validate:
    """Validate on the first process alone and tell the others, so that all stop after the same epoch."""

    def score(network: nn.Module) -> float:
        found = torch.tensor(validate(network) if place.rank == 0 else 0.0, dtype=torch.float64, device=place.device)
        with _together():
            torch_distributed.broadcast(found, 0)
        return float(found)

    return score


def wait(place: Place) -> None:
    """Go on when all processes have come here."""
    if place.world > 1:
        _average([torch.zeros(1, device=place.device)])


@torch.no_grad()
def _average(tensors: Sequence[Tensor]) -> None:
    if not tensors:
        return
    together = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _together():
        torch_distributed.all_reduce(together)
    together /= torch_distributed.get_world_size()
    for tensor, mean in zip(tensors, torch.split(together, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


@contextmanager
def _together() -> Iterator[None]:
    """Turn what torch raises when another process is gone into words."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(str(error).strip().splitlines()[0].partition(". ")[0]) from error


def _told_to_end(number: int, frame: object) -> None:
    """What `torchrun` does to the processes left when one of them has died."""
    raise _lost("torchrun ended this one too")


def _lost(reason: str) -> ResourceError:
    return ResourceError(
        f"another process of this run has ended, so it cannot go on: {reason}. Look at that process's own message; "
        "started again with the same command, the run goes on from the state it last saved."
    )
