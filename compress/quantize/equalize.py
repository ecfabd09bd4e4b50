"""Channels of one layer and the next brought to the same range, the network's function staying as it is.

Between two layers with nothing but f(s x) = s f(x), s > 0, between them, channel i may be divided by any s_i
where it is made and multiplied by it where it is read:

    W1[i] / s_i,  b1[i] / s_i,  W2[:, i] s_i,    s_i = sqrt(r1_i / r2_i),  r1_i = max |W1[i]|,  r2_i = max |W2[:, i]|

which gives both the range sqrt(r1_i r2_i). (Cross-layer equalization, https://arxiv.org/abs/1906.04721.)
"""

import copy
from dataclasses import dataclass

import torch
from torch import fx, nn

from compress.quantize.sequence import BIAS, KINDS, A, arguments, calls, trace

HOMOGENEOUS = {A.relu.default, A.max_pool2d.default, A.avg_pool2d.default}
"""Calls that a positive factor on a channel passes through; a pool, because it looks at one channel at a time."""
CUTTING = {A.hardtanh.default, A.clamp.default}
"""Activations that end at a value of their own (ReLU6), which no factor passes through."""
SWEEPS = 20
SETTLED = 1e-3
"""Relative change of every factor at which going through all pairs again is given up."""


@dataclass(frozen=True)
class Pair:
    """Two layers, the first read by the second alone: their weights, and the first one's bias where it has one."""

    first: str
    bias: str | None
    second: str


def equalize(
    network: nn.Module, input_shape: tuple[int, int, int]
) -> tuple[nn.Module, tuple[Pair, ...], tuple[Pair, ...]]:
    """A copy of a folded network, equalized; which pairs of layers are, and which are not for a ReLU6 between them.

    Zeros stay zeros, and a channel that is dead on either side stays as it is.
    """
    made = copy.deepcopy(network)
    found, cut = pairs(trace(made, input_shape))
    with torch.no_grad():
        for _ in range(SWEEPS):
            changes = [_even(made, pair) for pair in found]
            if not any(changes):
                break
    return made, found, cut


def pairs(traced: fx.GraphModule) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Pairs of convolutions that a factor passes between, and pairs that it would pass between but for a ReLU6."""
    found: list[Pair] = []
    cut: list[Pair] = []
    for call in calls(traced):
        if KINDS.get(call.target) != "conv" or not _own(call):
            continue
        passed = [call]
        while len(passed[-1].users) == 1 and (len(passed) == 1 or passed[-1].target in HOMOGENEOUS | CUTTING):
            passed.extend(passed[-1].users)
        end = passed.pop()
        if end is not call and KINDS.get(end.target) == "conv" and _own(end):
            weight, bias = (*arguments(call)[1:3], None)[:2]
            pair = Pair(str(weight.target), str(bias.target) if bias else None, str(arguments(end)[1].target))
            (cut if any(each.target in CUTTING for each in passed) else found).append(pair)
    return tuple(found), tuple(cut)


def _own(call: fx.Node) -> bool:
    """Whether a layer's weight and bias are stored, and no other call reads them."""
    stored = [value for value in arguments(call)[1 : BIAS + 1] if isinstance(value, fx.Node)]
    return all(value.op == "get_attr" and len(value.users) == 1 for value in stored)


def _even(network: nn.Module, pair: Pair) -> bool:
    """Even out one pair, in place; returns whether that still changed anything."""
    held = network.state_dict()  # a weight may be a buffer
    makes, reads = held[pair.first], held[pair.second]
    groups = len(makes) // reads.shape[1]
    by_channel = reads.reshape(groups, -1, *reads.shape[1:]).transpose(1, 2).flatten(0, 1).flatten(1)
    made, read = makes.flatten(1).abs().amax(1), by_channel.abs().amax(1)
    factor = torch.where((made > 0) & (read > 0), (made / read).sqrt(), 1.0)
    makes.div_(factor.reshape(-1, 1, 1, 1))
    if pair.bias is not None:
        held[pair.bias].div_(factor)
    reads.view(groups, -1, *reads.shape[1:]).mul_(factor.reshape(groups, 1, -1, 1, 1))
    return bool((factor - 1).abs().max() > SETTLED)
