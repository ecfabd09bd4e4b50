"""Batch-norm statistics measured again, once what reaches the batch norms is no longer what they were trained on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.errors import UsageError
from compress.pipeline import Resources
from compress.prune.calibration import batches

ONE = (
    "batch norms were to be measured on one image, and one of them reads a single value of each channel, which has no variance: "
    "give `images` of two at least, or leave them as they are with `recalibrate` off."
)


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms that hold statistics."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every batch norm, in place, the mean and variance of what reaches it over all `batches`, each counting the same.

    One pass does for all depths, as each batch norm passes on what it has just normalised by the batch's own
    statistics; memory does not grow with the number of batches. Leaves the network in inference mode.
    Raises UsageError where a batch of one image gives a batch norm one value of each channel, which has no variance.
    """
    with measuring(network), torch.no_grad():
        for images in batches:
            try:
                network(images)
            except ValueError as error:
                if len(images) == 1 and "more than 1 value per channel" in str(error):
                    raise UsageError(ONE) from error
                raise


@contextmanager
def measuring(network: nn.Module) -> Iterator[None]:
    """Have the batch norms, within, forget their statistics and measure those of each batch that the network answers.

    The network is in inference mode otherwise, and afterwards.
    """
    norms = batch_norms(network)
    network.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain average of all batches
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()


def recalibrated(network: nn.Module, resources: Resources, images: int) -> str:
    """Do so on calibration images, shifted and flipped as for training; returns what there is to say of it."""
    if not batch_norms(network):
        return "no batch norm to recalibrate"
    recalibrate(network.to(resources.device), batches(resources, images, "prune", augmented=True))
    network.cpu()
    return f"batch norms recalibrated on up to {images} images, varied as in training"
