"""What a runtime wants of an INT8 network, as data: quantizing, exporting and checking read the same value."""

from dataclasses import dataclass, field
from typing import Literal

from compress.errors import unknown

Kind = Literal[
    "conv", "linear", "add", "mul", "sigmoid", "average-pool", "cat", "max-pool", "pad", "slice", "split", "reshape"
]
"""Kinds of calls a target can tell apart; `reshape` is every call that only puts elements in another order or shape."""


@dataclass(frozen=True)
class Integers:
    """A range of integers: real = scale * (integer - zero point), with zero point 0 where it is symmetric."""

    dtype: Literal["uint8", "int8"]
    low: int
    high: int
    symmetric: bool


@dataclass(frozen=True)
class Target:
    """What a runtime computes on integers, and in which form it wants to be told.

    Weights have a scale for each output channel (axis 0), activations one for the whole tensor. The logits
    always stay float. `computed` kinds read and write integers; `carried` ones hand on the integers they are
    given, on one scale for what goes in and what comes out; `bare` ones stand between the QuantizeLinear and
    the DequantizeLinear rather than between two pairs of them. With `residual` "shortcut", the convolution
    that ends in an addition is not quantized on its way there, because the runtime computes the two as one.
    An int32 bias has the scale of its layer's input times that of its weight. `round_to` is the multiple of
    channels that the runtime computes anyway. `spares` names lint rules that cost nothing there: its own list
    of layers shows integers in all the forms they speak of.
    """

    name: str
    runtime: str
    activations: Integers
    weights: Integers
    bias: Literal["int32", "float"]
    residual: Literal["both", "shortcut"]
    computed: frozenset[Kind]
    carried: frozenset[Kind]
    bare: frozenset[Kind] = field(default=frozenset())
    round_to: int = 16
    spares: frozenset[str] = field(default=frozenset())


_WEIGHTS = Integers("int8", -127, 127, symmetric=True)
_MOVES: frozenset[Kind] = frozenset({"cat", "max-pool", "pad", "slice", "split", "reshape"})

TARGETS = {
    target.name: target
    for target in (
        Target(
            name="onnxruntime-cpu",
            runtime="ONNX Runtime on a CPU",
            activations=Integers("uint8", 0, 255, symmetric=False),
            weights=_WEIGHTS,
            bias="int32",
            residual="both",
            computed=frozenset({"conv", "linear", "add", "mul", "sigmoid", "average-pool"}),
            carried=_MOVES,
            bare=frozenset({"pad"}),
        ),
        Target(
            name="openvino",
            runtime="OpenVINO on a CPU",
            activations=Integers("uint8", 0, 255, symmetric=False),
            weights=_WEIGHTS,
            bias="float",
            residual="both",
            # Its own elementwise kernels are faster on floats than between two roundings.
            computed=frozenset({"conv", "linear", "add", "average-pool"}),
            carried=_MOVES,
            spares=frozenset(
                {"activation-type", "unused-range", "bias-type", "residual", "rounded-twice", "float-island"}
            ),
        ),
        Target(
            name="tensorrt",
            runtime="TensorRT 11 on an NVIDIA GPU",
            activations=Integers("int8", -127, 127, symmetric=True),
            weights=_WEIGHTS,
            bias="float",
            residual="shortcut",
            computed=frozenset({"conv", "linear", "add", "average-pool"}),
            carried=_MOVES,
            round_to=32,
        ),
    )
}


def target(name: str) -> Target:
    """The target of that name; raises UsageError with the nearest names."""
    if name not in TARGETS:
        raise unknown("target", name, TARGETS)
    return TARGETS[name]
