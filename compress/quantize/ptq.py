"""Post-training quantization of a network: prepare, calibrate, convert, and read the result as data."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, fx, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from compress.architecture import Edge, Quantization
from compress.checkpoint import Checkpoint
from compress.errors import Refusal
from compress.quantize.edges import read
from compress.quantize.graph import Tensors, finished, integer_bias, place
from compress.quantize.observers import settle
from compress.quantize.placement import Placement, refusals
from compress.quantize.sequence import attribute, calls, put_argument, trace
from compress.quantize.target import Target


@dataclass(frozen=True)
class Quantized:
    """What quantizing gave: the edges, the tensors they refer to, and the layers left in float.

    `reference` is the network as torchao converted it, and as it was repaired since; one rebuilt from the data has to
    equal it.
    `silent` counts the activations that were zero for every calibration image. `traced` is the float network's graph.
    """

    quantization: Quantization
    tensors: Tensors
    refusals: tuple[Refusal, ...]
    reference: fx.GraphModule
    silent: int
    traced: fx.GraphModule

    def graph(self, edges: Iterable[Edge] | None = None) -> fx.GraphModule:
        """The quantized network anew, all of it or with these edges alone."""
        chosen = self.quantization if edges is None else dataclasses.replace(self.quantization, edges=tuple(edges))
        return place(copy.deepcopy(self.traced), chosen, self.tensors)

    def rebuilt(self, weights: Mapping[str, Tensor]) -> fx.GraphModule:
        """The quantized network from the same calls and what a checkpoint holds; weights it holds as integers are NaN here.

        Loading the checkpoint follows the network anew, and refuses calls that are not these (`Quantization.operators`).
        """
        traced = copy.deepcopy(self.traced)
        own = {name: tensor for name, tensor in traced.state_dict().items() if tensor.is_floating_point()}
        for tensor in (own[name] for name in own.keys() - weights.keys()):
            tensor.fill_(torch.nan)
        for name in own.keys() & weights.keys():  # after them: two names may be of one tensor
            own[name].copy_(weights[name])
        return place(traced, self.quantization, weights)

    def repaired(self, tensors: Tensors, traced: fx.GraphModule | None = None) -> "Quantized":
        """The same with other integers here and there, or of another float network."""
        made = dataclasses.replace(self, tensors=self.tensors | tensors, traced=traced or self.traced)
        return dataclasses.replace(made, reference=made.graph())


def quantize(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    target: Target,
    observer: str,
    batches: Iterable[Tensor],
    *,
    share: float = 99.99,
    left: Mapping[str, str] = MappingProxyType({}),
) -> Quantized:
    """Quantize a folded network in inference mode; `network` stays as it is.

    `batches` are normalised images, each looked at once; `share` is what the observer `percentile` keeps. The layers
    in `left` stay in float, each with its reason. Raises CompressError where torch.export cannot follow the network,
    or NaN or infinity came by.
    """
    traced = trace(network, input_shape)
    prepared = prepare_pt2e(copy.deepcopy(traced), Placement(target, observer, share=share, left=left))
    with torch.no_grad():
        for images in batches:
            prepared(images)
    return finish(prepared, traced, target, left)


def finish(
    prepared: fx.GraphModule,
    traced: fx.GraphModule,
    target: Target,
    left: Mapping[str, str] = MappingProxyType({}),
) -> Quantized:
    """Convert a prepared graph whose ranges are known; `traced` is the graph it was made from.

    Raises CompressError where NaN or infinity came by.
    """
    with torch.no_grad():
        silent = settle(prepared, integer_biases=target.bias == "int32")
        converted = convert_pt2e(prepared)
        quantization, tensors = read(converted, traced, target)
        reference = _round_biases(converted, quantization)
    return Quantized(quantization, tensors, refusals(traced, target, left), reference, silent, traced)


def held(checkpoint: Checkpoint, result: Quantized, network: nn.Module | None = None) -> Checkpoint:
    """A folded checkpoint with the integers that came of quantizing it in place of their float weights.

    What stays float is the checkpoint's own, or where it was repaired that of `network`.
    """
    replaced = {name.removesuffix(".integer") for name in result.tensors}
    repaired = network.state_dict() if network else checkpoint.weights
    weights = {
        name: repaired.get(name, tensor) for name, tensor in checkpoint.weights.items() if name not in replaced
    } | result.tensors
    architecture = dataclasses.replace(checkpoint.architecture, quantization=result.quantization)
    return dataclasses.replace(checkpoint, architecture=architecture, weights=weights)


def _round_biases(converted: fx.GraphModule, quantization: Quantization) -> fx.GraphModule:
    """The converted graph with int32 biases where the edges say so, which torchao has no word for."""
    graph, sequence = converted.graph, calls(converted)
    held = {str(node.target): attribute(converted, node) for node in graph.find_nodes(op="get_attr")}
    for edge in quantization.edges:
        if edge.dtype == "int32":
            call = sequence[edge.consumer]
            put_argument(call, edge.argument, integer_bias(call, edge, held))
    return finished(graph, held)
