"""What a runtime wants of an INT8 network, as data: quantizing, exporting and checking read the same value."""

from dataclasses import dataclass, field, replace
from typing import Literal

from compress.architecture import Architecture
from compress.errors import UsageError, unknown

Kind = Literal[
    "conv", "linear", "add", "mul", "sigmoid", "average-pool", "cat", "max-pool", "pad", "slice", "split", "reshape"
]
"""Kinds of calls a target can tell apart; `reshape` is every call that only puts elements in another order or shape."""

WeightScales = Literal["channel", "tensor"]


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
    of layers shows integers in all the forms they speak of. A `simulated` target rounds to integers and computes
    in float: what it gives is smaller, and no faster. Only there may `weight_scales` be one for the whole tensor.
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
    simulated: bool = False
    weight_scales: WeightScales = "channel"


SIMULATED = "simulated: size only, no speed"
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
        Target(
            name="torch",
            runtime="torch",
            activations=Integers("uint8", 0, 255, symmetric=False),
            weights=_WEIGHTS,
            bias="float",
            residual="both",
            computed=frozenset({"conv", "linear", "add", "mul", "sigmoid", "average-pool"}),
            carried=_MOVES,
            simulated=True,
        ),
    )
}
RUN = [name for name, target in TARGETS.items() if not target.simulated]
"""Targets with a runtime that computes on integers."""


def target(name: str) -> Target:
    """The target of that name; raises UsageError with the nearest names."""
    if name not in TARGETS:
        raise unknown("target", name, TARGETS)
    return TARGETS[name]


def simulated(architecture: Architecture) -> bool:
    """Whether a network is quantized for a target that only simulates integers."""
    return architecture.quantization is not None and target(architecture.quantization.target).simulated


def scheme(
    base: Target, weight_bits: int = 8, activation_bits: int = 8, weight_scales: WeightScales = "channel"
) -> Target:
    """The target with integers of other sizes, 2 to 8 bits; raises UsageError where its runtime computes on its own alone."""
    if (weight_bits, activation_bits, weight_scales) == (8, 8, "channel"):
        return base
    if not base.simulated:
        raise UsageError(
            f"{base.runtime} computes on 8 bits, with a scale for each output channel of a weight. "
            "To see what other integers would cost, use the target torch, which simulates them."
        )
    furthest = 2 ** (weight_bits - 1) - 1
    return replace(
        base,
        weights=replace(base.weights, low=-furthest, high=furthest),
        activations=replace(base.activations, high=2**activation_bits - 1),
        weight_scales=weight_scales,
    )
