"""Library code that draws from torch's global source of chance, made to draw from a generator of ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator


@contextmanager
def drawing_from(generator: Generator) -> Iterator[None]:
    """Within the block, torch's global source on the CPU follows from `generator`; afterwards it is as it was."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
