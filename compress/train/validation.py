"""How good a network is on the images it does not learn from."""

import torch
from torch import nn

from compress.data.normalise import normalise
from compress.data.splits import LearningData


def validation_accuracy(network: nn.Module, data: LearningData, device: str = "cpu", batch: int = 256) -> float:
    """Top-1 on the validation split, in per cent; leaves the network in inference mode."""
    network.eval()
    right = 0
    with torch.inference_mode():
        for images, labels in data.validation.batches(batch):
            inputs = normalise(images, data.spec.preprocessing)
            inputs = inputs.to(device, memory_format=torch.channels_last)
            right += int((network(inputs).argmax(1).cpu() == labels).sum())
    return 100 * right / len(data.validation)
