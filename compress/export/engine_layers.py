"""In which numbers the layers of a TensorRT engine multiply, beside what the ONNX graph asked for.

TensorRT lists an engine's layers one to a line, with the type of every tensor each reads and the ONNX nodes it
was made of: its inspector does on the GPU, and its builder in the log, also where there is no GPU.
"""

import re
from collections import Counter
from dataclasses import dataclass

import onnx

MULTIPLIES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVES = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")

NAMES = {"int8": "int8", "fp8|e4m3": "fp8", "bf16|bfloat16": "bf16", "fp16|half": "fp16", "fp32|float": "fp32"}
"""The words TensorRT has used for each type, the narrowest type first."""

ASKED = {
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.FLOAT: "fp32",
}


@dataclass(frozen=True)
class Layer:
    """A layer that multiplies: its name in the ONNX graph, the type it asks for, and the one built, None where not told."""

    name: str
    asked: str
    built: str | None


def layers(content: bytes, listing: str) -> tuple[Layer, ...]:
    """The layers of an ONNX graph that multiply, as the engine with this listing computes them."""
    found = built(listing)
    return tuple(Layer(name, kind, found.get(name)) for name, kind in asked(content).items())


def asked(content: bytes) -> dict[str, str]:
    """The type each multiplying node of a strongly typed ONNX graph has to compute in."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content), data_prop=True)
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}

    def held(name: str) -> int:
        """The type a tensor is held in, behind what dequantizes it and what only moves it."""
        node = producers.get(name)
        if node is None or node.op_type not in (*MOVES, "DequantizeLinear"):
            return int(types.get(name, 0))
        return held(node.input[0]) if node.op_type in MOVES else int(types.get(node.input[0], 0))

    found = {}
    for node in graph.node:
        if node.op_type in MULTIPLIES:
            one, other = held(node.input[0]), held(node.input[1])
            found[node.name] = ASKED.get(one if one == other else types.get(node.input[0], 0), "another type")
    return found


def built(listing: str) -> dict[str, str]:
    """The type each ONNX node is computed in, from an engine's layers in TensorRT's one-line form; {} where it lists none.

    A layer multiplies in the narrowest type that two of the tensors it reads share: what it is given and its
    weights. A node spread over several layers has the narrowest of theirs, for the others only prepare its input.
    """
    order = list(NAMES.values())
    found: dict[str, str] = {}
    for line in listing.splitlines():
        reads = line[line.find("Inputs:") : line.find("Outputs:")] + "".join(re.findall(r"Weights: \{[^}]*\}", line))
        counts = Counter(filter(None, map(_name, re.findall(r"(?:Datatype|Type): ([^,}]*)", reads))))
        if not counts:
            continue
        kind = next((kind for kind in order if counts[kind] > 1), next(iter(counts)))
        for node in re.findall(r"\[ONNX Layer: ([^\]]+)\]", line):
            found[node] = min(kind, found.get(node, kind), key=order.index)
    return found


def _name(words: str) -> str | None:
    return next((name for pattern, name in NAMES.items() if re.search(pattern, words, re.IGNORECASE)), None)
