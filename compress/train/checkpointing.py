"""Less memory for a forward pass computed twice: a block keeps its inputs alone and is run again for its gradient."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from compress.errors import CompressError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_blocks(network: nn.Module) -> int:
    """Checkpoint every block of `network`, in place; returns how many there are. The results stay the same, bit for bit.

    A block is an outermost module with children that is no mere container: a residual block, an inception.
    Raises CompressError for a network without any. (Chen et al., https://arxiv.org/abs/1604.06174.)
    """
    blocks = list(_blocks(network))
    if not blocks:
        raise CompressError(
            "checkpointing was asked for, and the network has no blocks (modules of several layers) to run again. "
            "Leave it out, and lower --batch or raise --accumulate to save memory."
        )
    for block in blocks:
        block.forward = partial(_checkpointed, block, block.forward)
    return len(blocks)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, CONTAINERS):
            yield from _blocks(child)
        elif any(child.children()):
            yield child


def _checkpointed(block: nn.Module, forward: Any, *inputs: Any) -> Any:
    if not block.training:
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the first run of a block and its second one happen in: the second must not count for the statistics."""
    return nullcontext(), _uncounted(block)


@contextmanager
def _uncounted(block: nn.Module) -> Iterator[None]:
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted
