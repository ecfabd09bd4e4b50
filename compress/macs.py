"""What a network costs by its shapes alone: multiply-accumulates for one image, and learnt numbers.

Both are counted on the network in floating point (`compress.build.structure`); quantizing changes neither.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of convolutions, linear layers and matrix products, for one image of (C, H, W).

    Biases, batch norms, activations and pools are not counted, as in published figures.
    """
    return sum(layer_macs(network, input_shape).values())


def layer_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """The same, by the name of the module whose own code does the work; "" is the network's own forward."""
    parameter = next(network.parameters(), None)
    images = torch.zeros(1, *input_shape, device=parameter.device if parameter is not None else "cpu")
    with FlopCounterMode(display=False) as counter, torch.no_grad(), _every_product_seen():
        network(images)
    # The counter knows a module as Class.path.to.it, and counts what its children do as its own too.
    root = type(network).__name__
    totals = {
        name.removeprefix(root).removeprefix("."): sum(by_operator.values()) // 2  # it counts two per MAC
        for name, by_operator in counter.get_flop_counts().items()
        if name != "Global"
    }
    own = dict(totals)
    for name, total in totals.items():
        if name:
            parent = name.rpartition(".")[0]
            while parent not in own:  # a container that is never called itself, such as a ModuleList
                parent = parent.rpartition(".")[0]
            own[parent] -= total
    return {name: count for name, count in own.items() if count}


def parameters(network: nn.Module) -> int:
    """How many numbers a network has learnt; a tensor shared by two layers counts once, a masked zero counts."""
    return sum(parameter.numel() for parameter in network.parameters())


@contextlib.contextmanager
def _every_product_seen() -> Iterator[None]:
    """Keep attention out of its fused path, inside which the counter sees nothing."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
