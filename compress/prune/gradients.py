"""Gradients of the loss on training images, a batch at a time: what first-order criteria read."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.data.normalise import normalise
from compress.data.splits import shuffled
from compress.pipeline import Resources

GRADIENT_BATCH = 64
"""Images whose gradients are averaged before their size is taken."""

Labelled = Iterable[tuple[Tensor, Tensor]]
"""Batches of normalised images and their labels."""


def gradients(network: nn.Module, parameters: Sequence[Tensor], labelled: Labelled) -> Iterator[tuple[Tensor, ...]]:
    """The gradients of each batch's cross-entropy by some parameters, zeros where it does not depend on one.

    Computed in inference mode; the network is left in the mode it was, and parameters that were frozen stay so.
    """
    training, frozen = network.training, [each for each in parameters if not each.requires_grad]
    network.eval()
    for each in frozen:
        each.requires_grad_(True)
    for images, labels in labelled:
        place = parameters[0].device
        with torch.enable_grad():
            loss = functional.cross_entropy(network(images.to(place)), labels.to(place))
        yield torch.autograd.grad(loss, parameters, materialize_grads=True)
    for each in frozen:
        each.requires_grad_(False)
    network.train(training)


def labelled(resources: Resources, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Some training images, drawn by the seed; raises UsageError where there is no data."""
    data = resources.need_data("the Taylor criterion")
    order = shuffled(len(data.train), resources.seed)[:images]
    for pixels, labels in data.train.batches(GRADIENT_BATCH, order):
        yield normalise(pixels, data.spec.preprocessing), labels
