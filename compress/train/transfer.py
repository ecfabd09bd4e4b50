"""A trained network for another task: a new head, and which layers learn when."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compress.architecture import Architecture
from compress.build import structure
from compress.errors import CompressError
from compress.prune.narrow import size_of
from compress.train.loop import AfterStep

if TYPE_CHECKING:
    from compress.networks import UserNetwork


def head_of(network: nn.Module) -> str:
    """The name of the layer that answers with the logits: the last linear layer or convolution of the network."""
    layers = [name for name, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    if not layers:
        raise CompressError("the network has no linear layer or convolution, so it has no head to train or replace.")
    last: str = layers[-1]
    return last


def new_head(
    architecture: Architecture, weights: Mapping[str, Tensor], classes: int, seed: int, user: "UserNetwork | None"
) -> tuple[Architecture, dict[str, Tensor]]:
    """The network with a head for `classes` classes, drawn by `seed`; every other weight is as it was.

    Raises CompressError where the architecture does not say how many classes there are.
    """
    if "num_classes" not in architecture.arguments:
        raise CompressError(
            f"a new head was asked for, and {architecture.title} fixes its number of classes in its own code. "
            "Return a network for the new classes from your function, and import its weights."
        )
    name = head_of(structure(architecture, user))
    widths = dict(architecture.widths)
    if name in widths:
        widths[name] = (widths[name][0], classes)
    changed = dataclasses.replace(
        architecture, arguments={**architecture.arguments, "num_classes": classes}, widths=widths
    )
    network = structure(changed, user)
    head = network.get_submodule(name)
    if size_of(head)[1] != classes:
        raise CompressError(
            f"a new head was asked for, and the last layer of {architecture.title}, {name}, answers with "
            f"{size_of(head)[1]} values for {classes} classes: it is not the head."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head.reset_parameters()  # type: ignore[operator]  # a linear layer's or a convolution's
    fresh = {f"{name}.{key}": tensor.detach() for key, tensor in head.state_dict().items()}
    return changed, {**weights, **fresh}


def train_only(network: nn.Module, head: str) -> None:
    """Freeze every layer but the head; frozen norms keep their statistics and use them."""
    _rest_frozen_norms(network)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.get_submodule(head).requires_grad_(True)


def unfreeze(network: nn.Module, head: str, per_epoch: int, epochs: int) -> AfterStep:
    """Freeze all but the head, and give back layers from there to the first one, epoch by epoch: all after `epochs`.

    What is returned belongs after every step, and once before the first where a run goes on.
    (Howard and Ruder, https://arxiv.org/abs/1801.06146, section 3.3.)
    """
    train_only(network, head)
    layers = [name for name, layer in network.named_modules() if name != head and [*layer.parameters(recurse=False)]]

    def after(network: nn.Module, taken: int) -> None:
        count = round(len(layers) * min(1.0, taken // per_epoch / epochs))
        for name in layers[len(layers) - count :]:
            for parameter in network.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(True)

    return after


def _rest_frozen_norms(network: nn.Module) -> None:
    """Have each batch norm go into inference mode, before it is used, while its parameters are frozen."""

    def rest(norm: nn.Module, inputs: object) -> None:
        if not any(parameter.requires_grad for parameter in norm.parameters()):
            norm.eval()

    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            module.register_forward_pre_hook(rest)
