"""The network that a quantization stands for: a network traced afresh, with integers on its edges.

Needs no torchao: the operators `quantized_decomposed.*` come with torch, and ONNX has words for them
(QuantizeLinear and DequantizeLinear).
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor, fx, nn

from compress.architecture import Edge, Quantization
from compress.errors import CompressError
from compress.quantize.bias import quantize_bias
from compress.quantize.packing import packed_shape, packs, unpack
from compress.quantize.sequence import BIAS, KINDS, Q, arguments, attribute, calls, operators, put_argument, trace
from compress.quantize.target import target

RANGES = {"uint8": (0, 255), "int8": (-128, 127), "int32": (-(2**31), 2**31 - 1)}
SCALE, ZERO_POINT = "quantization.scale", "quantization.zero_point"

Tensors = dict[str, Tensor]


def insert(
    network: nn.Module, quantization: Quantization, weights: Mapping[str, Tensor], input_shape: tuple[int, int, int]
) -> fx.GraphModule:
    """The quantized network: `network` with the integers in `weights` on the edges of `quantization`.

    What stays in float is taken from `network`; int32 biases are made from its float ones. The result holds
    no float copy of what is held as integers, and cannot be trained. Raises CompressError where the edges,
    the integers or the scales do not fit the network.
    """
    return place(trace(network, input_shape), quantization, weights)


def place(traced: fx.GraphModule, quantization: Quantization, weights: Mapping[str, Tensor]) -> fx.GraphModule:
    """The same for a network already traced, whose graph is used up."""
    bare, quantizers = target(quantization.target).bare, _quantizers(weights)
    if operators(traced) != quantization.operators:
        raise CompressError(
            "this network was quantized when its exported calls were others than they are now: with another "
            "version of torch, or of the network's code. Quantize it again from the checkpoint before."
        )
    sequence = calls(traced)
    held = {str(node.target): attribute(traced, node) for node in traced.graph.nodes if node.op == "get_attr"}
    quantized: dict[tuple[Any, ...], fx.Node] = {}
    taken: set[tuple[int, int]] = set()
    for edge in sorted(quantization.edges, key=lambda edge: (edge.consumer, edge.argument)):
        _require(0 <= edge.consumer < len(sequence), edge, f"the network has {len(sequence)} calls")
        _require((edge.consumer, edge.argument) not in taken, edge, "it is there twice")
        taken.add((edge.consumer, edge.argument))
        lowest, highest = RANGES[edge.dtype]
        _require(lowest <= edge.low < edge.high <= highest, edge, "its range is not one of its integers")
        call = sequence[edge.consumer]
        if edge.tensor is None:
            value = _activation(call, edge, quantizers, quantized)
        elif edge.dtype == "int32":
            value = integer_bias(call, edge, held)
        else:
            value = _weight(call, edge, weights, held)
        put_argument(call, edge.argument, value)
    for call in sequence:
        if KINDS.get(call.target) in bare:
            _bare(call)
    return finished(traced.graph, held)


def finished(graph: fx.Graph, held: Tensors) -> fx.GraphModule:
    """A graph as a network of its own, in inference mode, holding the tensors it reads and nothing else."""
    for node in graph.find_nodes(op="get_attr"):
        if not node.users:
            graph.erase_node(node)
    module = fx.GraphModule({name: tensor.detach() for name, tensor in held.items()}, graph)
    module.graph.lint()
    return module.eval()


def dequantized(value: object, *, by: Any = None) -> bool:
    """Whether a value comes out of integers, by the one operator or any."""
    known = (by,) if by else (Q.dequantize_per_tensor.default, Q.dequantize_per_channel.default)
    return isinstance(value, fx.Node) and value.target in known


def integer_bias(call: fx.Node, edge: Edge, held: Tensors) -> fx.Node:
    """The bias of a layer whose input and weight come out of integers, as int32 on the scale of their products."""
    _require(edge.argument == BIAS and edge.axis == 0 and edge.tensor in held, edge, "it is not the bias of a layer")
    source, weight, bias = arguments(call)[:3]
    _require(
        KINDS.get(call.target) in ("conv", "linear")
        and dequantized(source, by=Q.dequantize_per_tensor.default)
        and dequantized(weight, by=Q.dequantize_per_channel.default),
        edge,
        "it is added to what are not integer products",
    )
    try:
        integer, scale = quantize_bias(held[bias.target], source.args[1], held[weight.args[1].target])
    except OverflowError as error:
        raise CompressError(
            f"the bias {edge.tensor} leaves int32 on the scale of its layer. Quantize it again."
        ) from error
    return _per_channel(call, edge, integer, scale, held)


def _activation(
    call: fx.Node, edge: Edge, quantizers: list[tuple[float, int]], quantized: dict[tuple[Any, ...], fx.Node]
) -> fx.Node:
    """The argument of an edge, rounded to integers once for all its readers on the same scale."""
    source, graph = _source(call, edge), call.graph
    row = -1 if edge.quantizer is None else edge.quantizer
    _require(0 <= row < len(quantizers), edge, f"the checkpoint has {len(quantizers)} activation scales")
    scale, zero_point = quantizers[row]
    _require(edge.low <= zero_point <= edge.high, edge, f"the zero point {zero_point} is out of its range")
    form = (scale, zero_point, edge.low, edge.high, getattr(torch, edge.dtype))
    if (source, form) not in quantized:
        with graph.inserting_after(source):
            quantized[source, form] = graph.call_function(Q.quantize_per_tensor.default, (source, *form))
    with graph.inserting_before(call):
        return graph.call_function(Q.dequantize_per_tensor.default, (quantized[source, form], *form))


def _weight(call: fx.Node, edge: Edge, weights: Mapping[str, Tensor], held: Tensors) -> fx.Node:
    """The parameter of an edge, from the integers and scales in the checkpoint."""
    source = _source(call, edge)
    _require(source.op == "get_attr" and source.target == edge.tensor, edge, f"the network reads {source.target} there")
    integer, scale = weights.get(f"{edge.tensor}.integer"), weights.get(f"{edge.tensor}.scale")
    if integer is None or scale is None:
        raise _damaged(edge, "its integers or scales are missing")
    shape = held[str(edge.tensor)].shape
    if packs(edge.low, edge.high) and integer.dtype == torch.uint8 and integer.shape == packed_shape(shape):
        integer = unpack(integer, shape)
    _require(
        integer.dtype == getattr(torch, edge.dtype) and integer.shape == shape,
        edge,
        f"its integers are not {edge.dtype} of {tuple(shape)}",
    )
    _require(bool(((integer >= edge.low) & (integer <= edge.high)).all()), edge, "its integers are out of their range")
    _require(edge.axis is not None and 0 <= edge.axis < len(shape), edge, "its axis is not one of the tensor's")
    _require(
        scale.shape == (shape[edge.axis or 0],) and _positive(scale),
        edge,
        "its scales are not one above zero for each channel",
    )
    return _per_channel(call, edge, integer, scale, held)


def _per_channel(call: fx.Node, edge: Edge, integer: Tensor, scale: Tensor, held: Tensors) -> fx.Node:
    """Hold integers and their scales, and read them at one call; a bias read at two calls is two different ones."""
    name = str(edge.tensor)
    if edge.dtype == "int32" and f"{name}.integer" in held:
        name = f"{name}.{edge.consumer}"
    parts = {"integer": integer, "scale": scale, "zero_point": torch.zeros(len(scale), dtype=torch.int64)}
    held |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    graph = call.graph
    with graph.inserting_before(call):
        nodes = [graph.create_node("get_attr", f"{name}.{part}") for part in parts]
        form = (edge.axis, edge.low, edge.high, getattr(torch, edge.dtype))
        return graph.call_function(Q.dequantize_per_channel.default, (*nodes, *form))


def _bare(call: fx.Node) -> None:
    """Pad the integers themselves, by their zero point: what pads zeros in float, exactly.

    Done where all that reads the result rounds it on the scale it came on.
    """
    given: tuple[Any, ...] = (*call.args, "constant", None)
    source, sizes, mode, fill = given[:4]
    if not dequantized(source, by=Q.dequantize_per_tensor.default) or mode != "constant" or fill:
        return
    readers = list(call.users)
    if all(user.target is Q.quantize_per_tensor.default and user.args[1:] == source.args[1:] for user in readers):
        call.args = (source.args[0], sizes, mode, float(source.args[2]))
        for user in readers:
            user.replace_all_uses_with(call)
            call.graph.erase_node(user)
        call.graph.erase_node(source)


def _quantizers(weights: Mapping[str, Tensor]) -> list[tuple[float, int]]:
    """The scale and zero point of each activation quantizer; raises CompressError where they are none."""
    scale, zero_point = weights.get(SCALE), weights.get(ZERO_POINT)
    if (
        scale is None
        or zero_point is None
        or scale.dim() != 1
        or scale.shape != zero_point.shape
        or zero_point.dtype != torch.int32
        or not _positive(scale)
    ):
        raise CompressError(
            f"the scales in this checkpoint are damaged: {SCALE} has to hold float32 above zero, and {ZERO_POINT} as "
            "many int32. Quantize again."
        )
    return list(zip(scale.tolist(), zero_point.tolist(), strict=True))


def _positive(scale: Tensor) -> bool:
    return scale.dtype == torch.float32 and bool((scale.isfinite() & (scale > 0)).all())


def _source(call: fx.Node, edge: Edge) -> fx.Node:
    values = arguments(call)
    _require(0 <= edge.argument < len(values), edge, f"the call has {len(values)} arguments")
    source = values[edge.argument]
    _require(
        isinstance(source, fx.Node) and isinstance(source.meta.get("val"), Tensor), edge, "there is no tensor there"
    )
    node: fx.Node = source
    return node


def _require(condition: bool, edge: Edge, what: str) -> None:
    if not condition:
        raise _damaged(edge, what)


def _damaged(edge: Edge, what: str) -> CompressError:
    place = f"argument {edge.argument} of call {edge.consumer}" + (f" ({edge.tensor})" if edge.tensor else "")
    return CompressError(
        f"the quantization in this checkpoint does not fit its network at {place}: {what}. Quantize again."
    )
