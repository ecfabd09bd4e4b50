"""What a quantized network's answers to validation images are worth, next to those of the float one."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.data.normalise import normalise
from compress.data.splits import LearningData, shuffled

IMAGES, BATCH = 2048, 128


@dataclass(frozen=True)
class Worth:
    """`distance` is |f' - f| / |f| over all logits; `top1` the per cent answered right, and `drop` the points lost."""

    distance: float
    top1: float
    drop: float


class Validation:
    """Up to 2,048 validation images, drawn by the seed, and what the float network answers."""

    def __init__(self, network: nn.Module, data: LearningData, seed: int) -> None:
        order = shuffled(len(data.validation), seed)[:IMAGES]
        batches = list(data.validation.batches(BATCH, order))
        self._images, self._preprocessing = [pixels for pixels, _ in batches], data.spec.preprocessing
        self.labels = torch.cat([labels for _, labels in batches])
        self._exact = self._answers(network, len(batches))

    def worth(self, quantized: nn.Module) -> Worth:
        """What the answers of a quantized network are worth."""
        answers = self._answers(quantized, len(self._images))
        top1, exact = (
            (100 * (each.argmax(1) == self.labels).double().mean()).item() for each in (answers, self._exact)
        )
        return Worth(_distance(answers, self._exact), top1, exact - top1)

    def distance(self, quantized: nn.Module) -> float:
        """The distance of the logits alone, over a quarter of the images, which is enough to compare layers by."""
        answers = self._answers(quantized, (len(self._images) + 3) // 4)
        return _distance(answers, self._exact[: len(answers)])

    @torch.no_grad()
    def _answers(self, network: nn.Module, batches: int) -> Tensor:
        return torch.cat([network(normalise(pixels, self._preprocessing)) for pixels in self._images[:batches]])


def _distance(answers: Tensor, exact: Tensor) -> float:
    return float((answers - exact).norm() / exact.norm().clamp_min(torch.finfo(exact.dtype).tiny))
