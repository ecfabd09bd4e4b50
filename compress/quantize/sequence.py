"""A network as the sequence of calls that quantization reads: the places where integers can be held."""

import hashlib
import operator
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from compress.errors import CompressError
from compress.quantize.target import Kind
from compress.trace import follow

A = torch.ops.aten
Q = torch.ops.quantized_decomposed

KINDS: dict[Any, Kind] = {
    A.conv2d.default: "conv",
    A.conv2d.padding: "conv",
    A.linear.default: "linear",
    A.add.Tensor: "add",
    A.mul.Tensor: "mul",
    A.sigmoid.default: "sigmoid",
    A.avg_pool2d.default: "average-pool",
    A.cat.default: "cat",
    A.max_pool2d.default: "max-pool",
    A.pad.default: "pad",
    A.slice.Tensor: "slice",
    A.split.Tensor: "split",
    operator.getitem: "split",
    A.view.default: "reshape",
    A.reshape.default: "reshape",
    A._unsafe_view.default: "reshape",
    A.flatten.using_ints: "reshape",
    A.squeeze.dims: "reshape",
    A.permute.default: "reshape",
    A.transpose.int: "reshape",
    A.clone.default: "reshape",
}
"""What a target calls each operator."""

BIAS = 2
"""Where a bias stands among the arguments of a convolution or linear layer, after the input and the weight."""


def trace(network: nn.Module, input_shape: tuple[int, int, int]) -> fx.GraphModule:
    """The calls of a network in inference mode, for any batch size, in the one form that integers are placed in.

    Nothing is computed in place; SiLU, hardswish and means over the image are the calls that runtimes
    have integer kernels for. Raises CompressError where torch.export cannot follow the network, or the
    network chooses while it runs which calls to make.
    """
    program = follow(network, input_shape).run_decompositions(
        {A.silu.default: _silu, A.hardswish.default: _hardswish, A.mean.dim: _mean}
    )
    graph_module: fx.GraphModule = program.module(check_guards=False)
    if not all(
        isinstance(attribute(graph_module, node), Tensor) for node in graph_module.graph.find_nodes(op="get_attr")
    ):
        raise CompressError(
            "this network chooses while it runs which calls to make (torch.cond or the like), and integers are placed "
            "in one fixed sequence. Write that part without the choice."
        )
    for call in calls(graph_module):
        if call.target is A.adaptive_avg_pool2d.default:
            _even_pool(call)
        elif call.target is A._native_batch_norm_legit_no_training.default:
            call.target = batch_norm
    graph_module.recompile()
    return graph_module


def calls(graph_module: fx.GraphModule) -> list[fx.Node]:
    """The calls of a graph in their order, without those that only change how numbers are held."""
    return [
        node
        for node in graph_module.graph.nodes
        if node.op == "call_function" and getattr(node.target, "namespace", "") != "quantized_decomposed"
    ]


def arguments(call: fx.Node) -> list[Any]:
    """The arguments of a call, lists among them (those of `cat`) opened; an edge names a position here."""
    flat: list[Any] = pytree.tree_flatten(call.args, is_leaf=_is_node)[0]
    return flat


def put_argument(call: fx.Node, position: int, value: fx.Node) -> None:
    """Replace one of `arguments(call)`."""
    flat, layout = pytree.tree_flatten(call.args, is_leaf=_is_node)
    flat[position] = value
    call.args = pytree.tree_unflatten(flat, layout)


def attribute(graph_module: nn.Module, node: fx.Node) -> Any:
    """What a `get_attr` node reads: in a traced graph, always a tensor."""
    return reduce(getattr, str(node.target).split("."), graph_module)


def title(call: fx.Node) -> str:
    """What a call calls: `aten::add.Tensor`, `getitem`."""
    operation: Any = call.target
    return str(operation.name() if hasattr(operation, "name") else operation.__name__)


def operators(graph_module: fx.GraphModule) -> str:
    """The digest of which operators are called in which order, on which parameters and which other calls' results."""
    sequence = calls(graph_module)
    position = {call: str(number) for number, call in enumerate(sequence)}
    digest = hashlib.sha256()
    for call in sequence:
        sources = (position.get(value, str(value.target)) for value in arguments(call) if isinstance(value, fx.Node))
        digest.update(f"{title(call)} {' '.join(sources)}\n".encode())
    return "sha256:" + digest.hexdigest()


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, momentum: float, eps: float
) -> tuple[Tensor]:
    """A batch norm that could not be folded, under a name torchao does not know.

    It would fold the operator into any convolution before it, also one that others read, and takes a minute
    over a DenseNet looking for those of quantization-aware training.
    """
    return (nn.functional.batch_norm(x, mean, variance, weight, bias, False, momentum, eps),)


def _is_node(value: object) -> bool:
    return isinstance(value, fx.Node)


def _silu(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def _hardswish(x: Tensor) -> Tensor:
    return x * nn.functional.hardsigmoid(x)


def _mean(x: Tensor, dim: list[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """A mean over the image is an average pool; every other mean stays."""
    if x.dim() != 4 or dtype is not None or sorted(axis % 4 for axis in dim or ()) != [2, 3]:
        return NotImplemented
    pooled = A.avg_pool2d.default(x, list(x.shape[2:]))
    return pooled if keepdim else pooled.flatten(1)


def _even_pool(call: fx.Node) -> None:
    """Write an adaptive pool as an average pool where its windows are all of one size."""
    source, rows, columns = arguments(call)
    height, width = source.meta["val"].shape[2:]
    if height % rows == 0 and width % columns == 0:
        call.target, call.args = A.avg_pool2d.default, (source, [height // rows, width // columns])
