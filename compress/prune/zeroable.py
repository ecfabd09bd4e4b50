"""Which layers of a network have weights that can be set to zero, and what each weight is worth."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.errors import Refusal, unknown
from compress.pipeline import Resources
from compress.prune import weights
from compress.prune.gradients import Labelled, gradients, labelled
from compress.prune.narrow import blocks_of, layout_of, per_channel, size_of


def layers_to_zero(
    network: nn.Module, exclude: Sequence[str] = (), fours: bool = False
) -> tuple[tuple[str, ...], tuple[Refusal, ...]]:
    """The convolutions and linear layers whose weights can go, singly or two of every `fours`, and why the others stay.

    Raises UsageError where `exclude` names a layer, or a module with all layers in it, that is not there.
    """
    modules = dict(network.named_modules())
    for name in exclude:
        if name not in modules:
            raise unknown("layer", name, filter(None, modules))
    reasons = {name: _reason(name, module, exclude, fours) for name, module in modules.items()}
    staying = {id(getattr(modules[name], "weight", None)): name for name, reason in reasons.items() if reason}
    layers: dict[int, str] = {}
    refusals = []
    for name, reason in reasons.items():
        weight = id(getattr(modules[name], "weight", None))
        if reason is None and weight in staying:
            refusals.append(Refusal(name, f"it shares its weights with {staying[weight]}, whose stay"))
        elif reason is None:
            layers.setdefault(weight, name)  # layers that share their weights give them once
        elif reason:
            refusals.append(Refusal(name or "the network itself", reason))
    return tuple(layers.values()), tuple(refusals)


def _reason(name: str, module: nn.Module, exclude: Sequence[str], fours: bool) -> str | None:
    """Why a module's weights stay: None where they can go, "" where it has none to speak of."""
    layout, own = layout_of(module), dict(module.named_parameters(recurse=False))
    if layout is None or per_channel(layout):
        found = [key for key, parameter in own.items() if parameter.dim() > 1]
        return f"{', '.join(found)}: not the weights of a convolution or linear layer" if found else ""
    if "weight" not in own:
        return "its weights are computed from others"
    if any(name == prefix or name.startswith(f"{prefix}.") for prefix in exclude):
        return "it was excluded"
    inputs, blocks = size_of(module)[0], blocks_of(module)
    if fours and inputs // blocks % 4:
        return f"its input channels ({inputs // blocks}{' in each group' if blocks > 1 else ''}) are not a multiple of four"
    return None


def weight_of(network: nn.Module, layer: str) -> Tensor:
    """A layer's weights, which are the network's own."""
    return network.get_parameter(f"{layer}.weight").detach()


def input_axis(network: nn.Module, layer: str) -> int:
    """The axis of a layer's weights on which its input channels lie."""
    layout = layout_of(network.get_submodule(layer))
    axis = layout.axes["weight"][0] if layout else None
    assert axis is not None, f"{layer} has no input channels"
    return axis


def in_fours(network: nn.Module, layers: Sequence[str]) -> tuple[str, ...]:
    """Those of `layers` in which two of every four weights along the input channels are zero."""
    return tuple(
        layer for layer in layers if weights.has_two_of_four(weight_of(network, layer), input_axis(network, layer))
    )


@torch.no_grad()
def score_weights(
    network: nn.Module, layers: Sequence[str], criterion: str, resources: Resources, images: int, largest: float = 1.0
) -> dict[str, Tensor]:
    """What a criterion thinks of each weight, as `weights.ranked` gives it; Taylor asks `images` training images.

    Raises UsageError for a criterion there is not, and where Taylor has no data.
    """
    if criterion not in weights.CRITERIA:
        raise unknown("criterion", criterion, weights.CRITERIA)
    own = {layer: weight_of(network, layer) for layer in layers}
    squares = {layer: torch.zeros_like(weight) for layer, weight in own.items()}
    if criterion == "taylor":
        squares = squared_gradients(network, layers, labelled(resources, images))
    return {
        layer: weights.ranked(weight, weights.CRITERIA[criterion](weight, squares[layer]), largest)
        for layer, weight in own.items()
    }


def squared_gradients(network: nn.Module, layers: Sequence[str], batches: Labelled) -> dict[str, Tensor]:
    """E[g^2] of each layer's weights over batches, g the gradient of a batch's cross-entropy.

    Memory does not grow with the number of batches.
    """
    parameters = [network.get_parameter(f"{layer}.weight") for layer in layers]
    totals, count = [torch.zeros_like(parameter) for parameter in parameters], 0
    for found in gradients(network, parameters, batches):
        for total, gradient in zip(totals, found, strict=True):
            total.add_(gradient.square())
        count += 1
    return {layer: total / count for layer, total in zip(layers, totals, strict=True)}
