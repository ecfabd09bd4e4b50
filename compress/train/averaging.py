"""A second set of weights that follows the first more steadily, and is what training gives in the end."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and batch-norm statistics, taken after every step t.

    W <- d W + (1 - d) w with d = min(decay, (1 + t) / (10 + t)), so that a short run is not held back by
    where it started. (Polyak averaging, as in https://arxiv.org/abs/1703.01780.)
    """

    def follow(averaged: Sequence[Tensor], current: Sequence[Tensor], taken: Tensor | int) -> None:
        reached = (1 + int(taken)) / (10 + int(taken))
        get_ema_multi_avg_fn(min(decay, reached))(averaged, current, taken)  # type: ignore[no-untyped-call]

    return AveragedModel(network, multi_avg_fn=follow, use_buffers=True)


class EpochAverage(AveragedModel):
    """The plain average of the weights at the ends of epochs, from that of step `start` on; before, the network's own.

    Batch norms are given the statistics of `images()` under the averaged weights, as those of the network do
    not belong to them. (SWA, Izmailov et al., https://arxiv.org/abs/1803.05407.)
    """

    steps: Tensor

    def __init__(self, network: nn.Module, per_epoch: int, start: int, images: Callable[[], Iterable[Tensor]]) -> None:
        super().__init__(network)
        self.per_epoch, self.start, self.images = per_epoch, start, images
        self.register_buffer("steps", torch.tensor(0))

    def update_parameters(self, model: nn.Module) -> None:
        """Count a step; where it ends an epoch, take the weights into the average."""
        self.steps += 1
        if int(self.steps) % self.per_epoch:
            return
        if int(self.steps) <= self.start:
            self.n_averaged.zero_()  # AveragedModel copies where nothing has been averaged yet
        super().update_parameters(model)
        if int(self.n_averaged) > 1:
            update_bn(self.images(), self.module)
