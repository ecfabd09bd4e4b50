"""The per-layer view of a network: channels, MACs, zeros and precision of everything that has weights."""

from typing import TYPE_CHECKING

from torch import nn

from compress.build import structure
from compress.checkpoint import Checkpoint
from compress.macs import layer_macs
from compress.measurement import Layer
from compress.prune.narrow import layout_of, size_of
from compress.sparsity import weight_of, zeros

if TYPE_CHECKING:
    from compress.networks import UserNetwork


def layers(checkpoint: Checkpoint, user: "UserNetwork | None" = None) -> tuple[Layer, ...]:
    """Every convolution and linear layer of a checkpoint, in the network's order."""
    architecture = checkpoint.architecture
    network = structure(architecture, user)
    macs = layer_macs(network, architecture.input_shape)
    integer = {edge.tensor: edge.bits for edge in architecture.quantization.edges} if architecture.quantization else {}
    left = {refusal.layer: refusal.reason for record in checkpoint.history for refusal in record.refusals}
    return tuple(
        Layer(
            name,
            type(module).__name__,
            *size_of(module),
            macs[name],
            _zeros(checkpoint, name),
            f"int{integer[f'{name}.weight']}" if f"{name}.weight" in integer else "fp32",
            left.get(name, ""),
        )
        for name, module in network.named_modules()
        if name in macs and isinstance(module, nn.Module) and layout_of(module) is not None
    )


def _zeros(checkpoint: Checkpoint, layer: str) -> float:
    """The share of a layer's weights that are zero."""
    name = weight_of(checkpoint.weights, layer)
    return zeros(checkpoint.weights[name]) if name else 0.0
