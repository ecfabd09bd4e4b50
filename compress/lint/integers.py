"""Rules about the integers themselves: their types, their zero points, their scales."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compress.lint.finding import Cost, Finding
from compress.lint.graph import (
    EIGHT_BITS,
    ENDS,
    Grid,
    activation,
    constant,
    grid,
    layers,
    quantizers,
    real,
    title,
    weight,
)
from compress.quantize.target import Integers, Target

HIGHEST = 2**31 - 1
"""The largest int32."""
CENTRE = 128
"""The uint8 that stands for what 0 does in int8."""
FAR = 1000
"""More integers than eight bits have."""
LARGEST_PRODUCT = 255 * 127
AGREE = 0.01
"""Relative difference up to which ONNX Runtime takes two scales for one."""


def operator_form(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Operators that hold their integers inside (QLinearConv) instead of Q/DQ around a float operator."""
    for node in model.graph:
        if node.op_type.startswith("QLinear") or node.op_type in ("ConvInteger", "MatMulInteger"):
            yield Finding(
                title(node),
                "operator-form",
                "refused" if target.activations.symmetric else "slow",
                f"{target.runtime} finds integers by the Q/DQ around a layer, and {node.op_type} has none.",
                "Quantize again with the Q/DQ format (onnxruntime.quantization: QuantFormat.QDQ).",
            )


def activation_type(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Activations held in other integers than the runtime computes on, or on a scale for each channel."""
    wanted = target.activations
    for node, found in quantizers(model):
        again = f"Quantize again with --target {target.name}."
        repair = "Move the zero point by 128 (--fix), which changes no number." if movable(found, wanted) else again
        cost: Cost
        if wanted.symmetric and found.zero_point.any():
            cost, why = "refused", f"{target.runtime} has no zero points, and this one is {found.zero_point.max()}."
        elif wanted.symmetric and found.dtype == "uint8":
            cost, why = "wrong", f"{target.runtime} reads uint8 as int8: all above {wanted.high} scales is cut off."
        elif found.scale.size > 1:
            cost, why, repair = "slow", "it has a scale for each channel, so the layer behind it stays float.", again
        elif found.dtype != wanted.dtype:
            cost, why = (
                "slow",
                f"{target.runtime} computes on {wanted.dtype}, and leaves additions of {found.dtype} and what feeds them in float.",
            )
        else:
            continue
        yield Finding(title(node), "activation-type", cost, why, repair)


def movable(found: Grid, wanted: Integers) -> bool:
    """Whether the same numbers can be held in the wanted integers, 128 up or down."""
    exact = found.zero_point == CENTRE if wanted.symmetric else np.True_
    return {found.dtype, wanted.dtype} == {"uint8", "int8"} and bool(np.all(exact))


def unused_range(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Activations behind a ReLU or ReLU6 with integers left over for what it has cut off."""
    for node, _, spare, _ in half_used(model, target):
        yield Finding(
            title(node),
            "unused-range",
            "slow",
            f"{spare} of its 256 integers stand for what the activation before it cuts off, so {target.runtime} cannot "
            "leave that to the rounding, and the layer before stays float.",
            "Let the integers start and end where the activation does, in finer steps (--fix).",
        )


def half_used(model: ir.Model, target: Target) -> Iterator[tuple[ir.Node, Grid, int, tuple[float, float]]]:
    """Every QuantizeLinear with integers its activation leaves over: how many, and the range that would use them all.

    A symmetric target leaves half of them over by its own nature.
    """
    for node, found in quantizers(model):
        cut, ends = _cut(node.inputs[0]), EIGHT_BITS.get(found.dtype)
        if cut is None or ends is None or found.scale.size > 1 or target.activations.symmetric:
            continue
        scale, zero = float(found.scale[0]), int(found.zero_point[0])
        # Zero itself has to stay an integer, so a range never ends before it.
        low = max(ends[0], round(max(min(cut[0], 0.0) / scale, -FAR)) + zero)
        high = min(ends[1], round(min(max(cut[1], 0.0) / scale, FAR)) + zero)
        spare = low - ends[0] + ends[1] - high
        if spare and high > low:
            yield node, found, spare, ((low - zero) * scale, (high - zero) * scale)


def _cut(value: ir.Value | None) -> tuple[float, float] | None:
    """The range an activation lets through, where a value comes from one."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in ENDS:
        return None
    if node.op_type == "Relu":
        return 0.0, np.inf
    ends = [constant(node.inputs[place]) if len(node.inputs) > place else None for place in (1, 2)]
    low, high = (float(end.reshape(-1)[0]) if end is not None else None for end in ends)
    return (-np.inf if low is None else low), (np.inf if high is None else high)


def weight_type(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Weights that are not on the target's grid: a zero point, other integers, one scale for all channels, a wrong axis."""
    for node in layers(model):
        held = weight(node.inputs[1])
        found = grid(held) if held is not None else None
        values = constant(real(held)) if held is not None else None
        if held is None or found is None or values is None:
            continue
        axis = output_axis(node, values.ndim)
        again = f"Quantize again with --target {target.name}."
        cost: Cost
        if target.activations.symmetric and (found.zero_point.any() or found.dtype != target.weights.dtype):
            cost, repair = "refused", again
            why = f"{target.runtime} wants weights in {target.weights.dtype} without a zero point."
        elif found.scale.size > 1 and found.axis % values.ndim != axis:
            cost, repair = "slow", again
            why = f"its scales run along axis {found.axis}, not along its output channels, so it stays float."
        elif found.scale.size == 1 and values.shape[axis] > 1:
            cost, why = "inexact", f"one scale serves {values.shape[axis]} channels: the small ones are rounded away."
            repair = "Quantize again with a scale for each channel (onnxruntime.quantization: per_channel=True)."
        else:
            continue
        yield Finding(title(node), "weight-type", cost, why, repair)


def output_axis(node: ir.Node, rank: int) -> int:
    """The axis of a layer's weight along which its output channels lie."""
    if node.op_type == "MatMul":
        before = node.inputs[1].producer() if node.inputs[1] is not None else None
        return rank - 2 if before is not None and before.op_type == "Transpose" else rank - 1
    if node.op_type == "Gemm":
        return 0 if "transB" in node.attributes and node.attributes["transB"].as_int() else 1
    return 0


def bias_type(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Biases the runtime does not take as they are: int32 where it adds in float, or int32 on a scale of its own."""
    for node in layers(model):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None or activation(node.inputs[0]) is None or weight(node.inputs[1]) is None:
            continue
        if target.bias == "float" and target.activations.symmetric and weight(bias) is not None:
            yield Finding(
                title(node),
                "bias-type",
                "refused",
                f"{target.runtime} dequantizes no int32, and adds biases in float anyway.",
                "Store the bias in float (--fix; onnxruntime.quantization: QuantizeBias=False).",
            )
        elif target.bias == "int32" and (other := own_scale(node)) is not None:
            yield Finding(
                title(node),
                "bias-type",
                "wrong",
                f"the scale of its bias is {other:.3g} times that of input times weight: older versions of {target.runtime} "
                "add the integers as they are, newer ones compute the layer in float.",
                "Store the bias on the scale of input times weight (--fix).",
            )


def own_scale(node: ir.Node) -> float | None:
    """How many times the scale of a layer's sums the scale of its int32 bias is; None where they agree, or it has none.

    https://github.com/microsoft/onnxruntime/issues/24711
    """
    held, unit = weight(node.inputs[2]), sum_scale(node)
    own = grid(held) if held is not None else None
    if own is None or unit is None:
        return None
    ratio = own.scale / unit
    furthest = float(ratio[np.abs(np.log(ratio)).argmax()])
    return None if np.isclose(furthest, 1, rtol=AGREE) else furthest


def bias_overflow(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Biases that do not fit int32 on the scale of their layer's sums, which is input times weight.

    Channels that are almost dead have tiny weight scales: https://github.com/microsoft/onnxruntime/issues/29747.
    """
    for node in layers(model):
        bias, unit, held = real_bias(node), sum_scale(node), weight(node.inputs[1])
        values = constant(real(held)) if held is not None else None
        if bias is None or unit is None or values is None:
            continue
        if target.bias == "float" and weight(node.inputs[2]) is None:
            continue
        sums = values.size // values.shape[output_axis(node, values.ndim)] * LARGEST_PRODUCT
        needed = np.abs(bias / unit)
        over = needed + sums > HIGHEST
        if over.any():
            yield Finding(
                title(node),
                "bias-overflow",
                "wrong",
                f"the bias of {over.sum()} of its {over.size} channels comes to {needed.max():.3g} units of input scale times "
                f"weight scale, and int32 ends at {HIGHEST:.3g}.",
                "Give these channels a larger weight scale, or remove them: their weights are almost zero.",
            )


def sum_scale(node: ir.Node) -> NDArray[np.float64] | None:
    """What one integer of a layer's sums stands for: its input's scale times its weight's, by output channel or for all.

    None where either is not stored, or the weight's scales do not run along its output channels.
    """
    reads, multiplies = activation(node.inputs[0]), weight(node.inputs[1])
    values = constant(real(multiplies)) if multiplies is not None else None
    if reads is None or multiplies is None or values is None:
        return None
    given, weights = grid(reads), grid(multiplies)
    if given is None or weights is None:
        return None
    along = weights.scale.size == 1 or weights.axis % values.ndim == output_axis(node, values.ndim)
    return given.scale * weights.scale if along else None


def real_bias(node: ir.Node) -> NDArray[np.float64] | None:
    """The numbers a layer's bias stands for, one for each output channel; None where it has none that is stored."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    held = weight(bias)
    stored, own = constant(bias if held is None else real(held)), grid(held) if held is not None else None
    if stored is None or stored.ndim != 1 or (held is not None and own is None):
        return None
    # In float32, as a DequantizeLinear multiplies: a bias that differs in the last bit moves roundings behind it.
    numbers = stored.astype(np.float32) * (np.float32(1) if own is None else own.scale.astype(np.float32))
    return numbers.astype(np.float64)
