"""The probabilities of a network's own random layers, set for training; no weight is touched and no layer added."""

import pkgutil

from torch import nn

from compress.errors import CompressError

KINDS = {
    "dropout": "torch.nn:Dropout torch.nn:AlphaDropout",
    "spatial_dropout": "torch.nn:Dropout1d torch.nn:Dropout2d torch.nn:Dropout3d torch.nn:FeatureAlphaDropout",
    "drop_block": "torchvision.ops:DropBlock2d torchvision.ops:DropBlock3d",
    "stochastic_depth": "torchvision.ops:StochasticDepth",
}
"""Each kind's layers; torchvision, slow to import, is only where one of its own is asked for.
(https://jmlr.org/papers/v15/srivastava14a.html, https://arxiv.org/abs/1411.4280,
https://arxiv.org/abs/1810.12890, https://arxiv.org/abs/1603.09382.)"""


def regularise(network: nn.Module, kind: str, probability: float) -> int:
    """Set the probability of every layer of a `kind`, 0 to switch them off; returns how many there are.

    Of L stochastic-depth layers, layer l gets probability * l / L, as in its paper. Raises CompressError
    where the network has no layer of the kind.
    """
    types = layers_of(kind)
    layers = [module for module in network.modules() if isinstance(module, types)]
    if not layers:
        names = " or ".join(each.__name__ for each in types)
        raise CompressError(
            f"{kind} {probability} was asked for, and the network has no layer of that kind ({names}); none is added to a "
            f"network that comes without. Leave `{kind}` out."
        )
    for number, layer in enumerate(layers, 1):
        share = number / len(layers) if kind == "stochastic_depth" else 1.0
        layer.p = probability * share  # type: ignore[assignment]  # each of these layers keeps its probability there
    return len(layers)


def layers_of(kind: str) -> tuple[type[nn.Module], ...]:
    """The types of layer that belong to a kind."""
    return tuple(pkgutil.resolve_name(name) for name in KINDS[kind].split())
