"""The network of quantization-aware training: its own layers, called as if their batch norms were folded, on integers.

torchao places the roundings in the network as it is when folded, so they stand where they do after
training. Each folded layer then takes its weight from the layer and the batch norm it came from,

    W' = s W,    b' = s (b - mean) + beta,    s = gamma / sqrt(variance + eps),

and rounds W'. While the batch norm learns, the layer computes with rounded(W') / s and b, and the batch norm
follows with the statistics of the batch; once these are held, with rounded(W') and rounded(b'), which is the
network that is converted, bit for bit. (Jacob et al., https://arxiv.org/abs/1712.05877, section 3.2;
Krishnamoorthi, https://arxiv.org/abs/1806.08342, section 3.2.2.)
"""

import copy
import operator
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

from compress.architecture import Prepared
from compress.errors import CompressError
from compress.fold.batchnorm import absorb
from compress.fold.structure import strip
from compress.quantize.bias import weight_floor
from compress.quantize.qat_rounding import Rounding, RoundingPlacement, roundings
from compress.quantize.sequence import BIAS, KINDS, arguments, attribute, calls, operators, put_argument, trace
from compress.quantize.target import Target, scheme, target

ROUNDINGS = "quantization"
"""The module that holds the roundings, in the order of the calls."""


def scheme_of(prepared: Prepared) -> Target:
    """The integers that a network is prepared for."""
    return scheme(target(prepared.target), prepared.weight_bits, prepared.activation_bits)


def insert(traced: fx.GraphModule, prepared: Prepared) -> fx.GraphModule:
    """A traced graph with roundings in it that have seen nothing; `traced` becomes it."""
    found: fx.GraphModule = prepare_qat_pt2e(
        traced, RoundingPlacement(scheme_of(prepared), prepared.step_sizes == "learned")
    )
    for rounding, nodes in roundings(found).items():
        if rounding.ch_axis is not None:
            rounding.size(attribute(found, cast(fx.Node, nodes[0].args[0])).shape[rounding.ch_axis])
    return found


def prepare(network: nn.Module, prepared: Prepared, input_shape: tuple[int, int, int]) -> fx.GraphModule:
    """The network made ready to train on integers, around its own layers, which keep their names.

    Raises CompressError where torch.export cannot follow it, or follows it on another way than when it was prepared.
    """
    traced = folded_calls(network, prepared.folded, input_shape)
    if operators(traced) != prepared.operators:
        raise CompressError(
            "this network was prepared when its exported calls were others than they are now: with another version of "
            "torch, or of the network's code. Prepare it again from the checkpoint before."
        )
    return around(network, traced, prepared)


def folded_calls(
    network: nn.Module, pairs: Iterable[tuple[str, str]], input_shape: tuple[int, int, int]
) -> fx.GraphModule:
    """The calls of a network as they are once it is folded; what it computes with means nothing."""
    return trace(strip(copy.deepcopy(network), pairs).eval(), input_shape)


def around(network: nn.Module, traced: fx.GraphModule, prepared: Prepared) -> fx.GraphModule:
    """What `prepare` gives, of the `folded_calls`; the network's modules become part of it."""
    found = insert(traced, prepared)
    network.add_module(ROUNDINGS, nn.ModuleList(roundings(found)))
    for number, nodes in enumerate(roundings(found).values()):
        for node in nodes:
            node.target = f"{ROUNDINGS}.{number}"
    graph_module = _with_all_of(network, found)
    norms = {f"{layer}.weight": norm for layer, norm in prepared.folded}
    for call in calls(graph_module):
        _unfold(call, network, norms, scheme_of(prepared))
    for node in graph_module.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        # Training is channels last, and such activations have no other view.
        node.target = torch.ops.aten.reshape.default
    for node in reversed(graph_module.graph.nodes):
        if node.op in ("get_attr", "call_module") and not node.users:
            graph_module.graph.erase_node(node)
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def weight_and_bias(
    norm: _BatchNorm | None,
    source: Rounding | None,
    rounding: Rounding | None,
    weight: Tensor,
    bias: Tensor | None,
    whole: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """What a layer computes with: its batch norm absorbed, weight and bias rounded.

    `source` rounds the layer's input where integer biases bound the weight's scale; `whole` says whether this
    layer's becomes one; `rounding` is the weight's.
    """
    computed, shift = weight, bias
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None, "only such a one is folded"
        computed, shift = absorb(weight, bias, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
    if rounding is not None:
        rounding.see(computed)
        scale, zero_point = rounding.calculate_qparams()
        if source is not None and shift is not None:
            reads = source.calculate_qparams()[0]
            scale = torch.maximum(scale, weight_floor(shift.detach(), reads.detach().double()))
            shift = _rounded(shift, (scale * reads).detach()) if whole else shift
        computed = rounding.round(computed, scale, zero_point)
    if norm is not None and norm.training:
        return computed / _factor(norm).reshape(-1, *[1] * (weight.dim() - 1)), bias
    return computed, shift


def normalised(norm: _BatchNorm, x: Tensor) -> Tensor:
    """What a batch norm that still learns makes of its layer's result; one that is held is in the weights already."""
    found: Tensor = norm(x) if norm.training else x
    return found


def _factor(norm: _BatchNorm) -> Tensor:
    """s of each channel; 1 for a channel whose gamma is 0, as it has no weights left to divide."""
    assert norm.running_var is not None
    factor = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight
    return torch.where(factor == 0, 1.0, factor)


def _rounded(bias: Tensor, scale: Tensor) -> Tensor:
    """A bias as the integer it becomes, back in float; its gradient passes."""
    whole = (bias.detach().double() / scale.double()).round().to(bias.dtype) * scale
    return whole + (bias - bias.detach())


def _unfold(call: fx.Node, network: nn.Module, norms: dict[str, str], wanted: Target) -> None:
    """Give a layer its weight and bias through `weight_and_bias`, and its batch norm after it."""
    parts = arguments(call)
    if len(parts) < BIAS or not isinstance(parts[1], fx.Node):
        return
    graph, rounding = call.graph, parts[1] if parts[1].op == "call_module" else None
    weight = cast(fx.Node, rounding.args[0] if rounding else parts[1])
    norm = norms.get(str(weight.target)) if weight.op == "get_attr" else None
    layer = KINDS.get(call.target) in ("conv", "linear")
    if norm is None and not (layer and rounding):
        return
    stored = len(parts) > BIAS and isinstance(parts[BIAS], fx.Node) and parts[BIAS].op == "get_attr"
    reads = layer and rounding and stored and wanted.bias == "int32" and parts[0].op == "call_module"
    source = parts[0] if reads else None
    whole = KINDS.get(call.target) == "conv" or call.meta["val"].dim() == 2  # as `edges.read` will find it
    with graph.inserting_before(call):
        modules = [
            graph.get_attr(str(name)) if name else None
            for name in (norm, source and source.target, rounding and rounding.target)
        ]
        has_bias = stored and attribute(network, parts[BIAS]) is not None
        made = graph.call_function(weight_and_bias, (*modules, weight, parts[BIAS] if has_bias else None, whole))
        put_argument(call, 1, graph.call_function(operator.getitem, (made, 0)))
        if stored:
            put_argument(call, BIAS, graph.call_function(operator.getitem, (made, 1)))
    if norm:
        with graph.inserting_after(call):
            result = graph.call_function(normalised, (modules[0], call))
        call.replace_all_uses_with(result, delete_user_cb=lambda user: user is not result)


def _with_all_of(network: nn.Module, found: fx.GraphModule) -> fx.GraphModule:
    """The graph around the network's own modules, all of them, and what constants tracing made."""
    for node in found.graph.find_nodes(op="get_attr"):
        owner, _, name = str(node.target).rpartition(".")
        if not hasattr(network.get_submodule(owner), name):
            network.get_submodule(owner).register_buffer(name, attribute(found, node), persistent=False)
    graph_module = fx.GraphModule(network, found.graph)
    for name, parameter in network.named_parameters(recurse=False):
        graph_module.register_parameter(name, parameter)
    for name, child in network.named_children():
        graph_module.add_module(name, child)
    return graph_module
