"""Half precision: an ONNX graph that computes in FP16 or BF16 between images and logits that stay FP32.

The types are in the graph itself, with a Cast wherever they change: TensorRT 11 can be told in no other way.
A layer whose numbers do not fit FP16 stays FP32 and is named. The converters at hand (onnxconverter-common,
onnxruntime.transformers) know no BF16 and cut a weight that is too large down to the largest number without
a word: https://github.com/microsoft/onnxconverter-common/issues/268.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common
from onnxscript import version_converter

from compress.errors import CompressError, Refusal, UsageError
from compress.export.onnx_file import check
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.session import Images

if TYPE_CHECKING:
    from compress.checkpoint import Checkpoint

Precision = Literal["fp16", "bf16"]

TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
OPSETS = {"fp16": 13, "bf16": 22}
"""The first opset whose convolutions and pools have this type."""

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_normal)
MARGIN = 2.0
"""How many times further than on the calibration images a layer's numbers may reach on others."""
BATCH = 8
"""Images whose inner tensors are held in memory at once."""
IMAGES = 64
"""Calibration images to look at."""


@dataclass(frozen=True)
class Half:
    """The bytes of the converted graph, and the layers that stay FP32, each with the reason."""

    content: bytes
    kept: tuple[Refusal, ...]


def convert(content: bytes, precision: Precision, images: Images | None = None) -> Half:
    """The graph of checked ONNX bytes in half precision; the same bytes and images give the same bytes.

    `images` are normalised calibration images (N, C, H, W): a layer that reads or writes numbers within a
    factor of `MARGIN` of FP16's largest, 65504, on any of them stays FP32, as does one whose weights are all below
    FP16's smallest normal number, 6.1e-5. BF16 reaches as far as FP32 and
    needs none. Raises UsageError where FP16 has no images, and CompressError for a graph that holds integers,
    branches, or half precision already, or that gives NaN for one of the images.
    """
    model = ir.from_proto(onnx.load_model_from_string(content))
    if model.opset_imports[""] < OPSETS[precision]:
        version_converter.convert_version(model, OPSETS[precision])
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.ShapeInferencePass()(model)
    _require_plain(model.graph)
    peaks = _peaks(model, images) if precision == "fp16" else {}
    kept = {node: reason for node in model.graph if (reason := _reason(node, model, TYPES[precision], peaks))}
    _narrow(model, TYPES[precision], kept)
    common.RemoveUnusedNodesPass()(model)
    found: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    check(found, f"the {precision} form of {model.graph.name}")
    return Half(found, tuple(Refusal(node.name or node.op_type, reason) for node, reason in kept.items()))


def _require_plain(graph: ir.Graph) -> None:
    """Raise CompressError unless the graph is a straight one that computes in FP32."""
    for node in graph:
        types = {value.dtype for value in (*node.inputs, *node.outputs) if value is not None}
        if "Quantize" in node.op_type or node.op_type.startswith("QLinear"):
            problem = "holds integers, and half precision is for what computes in FP32"
        elif types & {*TYPES.values(), None}:
            problem = "computes in half precision already, or in a type that cannot be inferred"
        elif any(each.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for each in node.attributes.values()):
            problem = "is a branch or a loop"
        else:
            continue
        raise CompressError(
            f"the graph cannot be turned to half precision: {node.op_type} {node.name!r} {problem}. "
            "Export an FP32 checkpoint of a network without branches."
        )


def _peaks(model: ir.Model, images: Images | None) -> dict[str, float]:
    """The largest magnitude of every FP32 tensor of a graph: what it computes for the images, and its weights."""
    if images is None or not len(images):
        raise UsageError(
            "fp16 was asked for without images (--data) to find the layers whose numbers it cannot hold. "
            "Give calibration images, or use bf16, which reaches as far as FP32."
        )
    weights = {name: value for name, value in model.graph.initializers.items() if _is_float(value)}
    peaks = {name: _peak(value.const_value.numpy()) for name, value in weights.items() if value.const_value}
    peaks[str(model.graph.inputs[0].name)] = _peak(images)
    names = [str(value.name) for node in model.graph for value in node.outputs if _is_float(value)]
    session = OnnxSession(ir.to_proto(model).SerializeToString(), optimise=False)
    look, size = session.outputs(names), session.batch or BATCH
    for start in range(0, len(images), size):
        for name, numbers in look(images[start : start + size]).items():
            if np.isnan(numbers).any():
                raise CompressError(
                    f"the FP32 network gives NaN in {name!r} for a calibration image, so its range cannot be found. "
                    "Look at the images, or go back to a checkpoint that answers them."
                )
            peaks[name] = max(peaks.get(name, 0.0), _peak(numbers))
    return peaks


def _peak(numbers: NDArray[Any]) -> float:
    """The largest finite magnitude; an infinity, such as pads a max pool, is one in half precision too."""
    return float(np.abs(numbers, where=np.isfinite(numbers), out=np.zeros_like(numbers)).max(initial=0.0))


def _reason(node: ir.Node, model: ir.Model, to: ir.DataType, peaks: Mapping[str, float]) -> str | None:
    """Why a node stays FP32; None where it does not, or has nothing to do with FP32."""
    names = [str(value.name) for value in (*node.inputs, *node.outputs) if value is not None and _is_float(value)]
    if not names:
        return None
    if not _positions(node, model, to):
        return f"{node.op_type} has no form that computes in {to.name.lower()}"
    name = max(names, key=lambda name: peaks.get(name, 0.0))
    if peaks.get(name, 0.0) * MARGIN > LARGEST:
        return f"{name} reaches {peaks[name]:.3g}, within a factor of {MARGIN:g} of where FP16 ends ({LARGEST:.0f}), or beyond"
    for weight in (value for value in node.inputs if value is not None and value.const_value and value.shape):
        if len(weight.shape or ()) > 1 and 0 < peaks.get(str(weight.name), 0.0) < SMALLEST:
            return f"{weight.name} stays below {SMALLEST:.1e}, where FP16 has fewer digits the smaller a number is, and then none"
    return None


def _positions(node: ir.Node, model: ir.Model, to: ir.DataType) -> frozenset[int]:
    """The inputs of a node that take the type `to` when it computes in it; none where it cannot."""
    if not onnx.defs.has(node.op_type, node.domain):
        return frozenset()
    schema = onnx.defs.get_schema(node.op_type, model.opset_imports[node.domain], node.domain)
    tensor = f"tensor({to.name.lower()})"
    able = {each.type_param_str for each in schema.type_constraints if tensor in each.allowed_type_strs}
    inputs = {place: _variable(schema.inputs, place) for place, value in enumerate(node.inputs) if _is_float(value)}
    outputs = {_variable(schema.outputs, place) for place, value in enumerate(node.outputs) if _is_float(value)}
    halved = {place: variable for place, variable in inputs.items() if variable in able}
    return frozenset(halved) if outputs <= set(halved.values()) else frozenset()


def _variable(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], place: int) -> str:
    """The type variable of an input or output; the last one stands for all that follow it."""
    return str(parameters[min(place, len(parameters) - 1)].type_str)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _narrow(model: ir.Model, to: ir.DataType, kept: Collection[ir.Node]) -> None:
    """Let every node but `kept` compute in `to`, with a Cast wherever the type changes; weights are cast here."""
    graph = model.graph
    first = graph[0]
    forms: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def form(value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if (value, dtype) not in forms:
            name = f"{value.name}/{dtype.name.lower()}"
            if value.const_value is not None:
                numbers = ir.tensor(value.const_value.numpy().astype(dtype.numpy()), name=name)
                made = ir.val(name, const_value=numbers)
                graph.register_initializer(made)
            else:
                cast = ir.node("Cast", [value], {"to": dtype}, name=name)
                made = cast.outputs[0]
                made.name, made.dtype, made.shape = name, dtype, value.shape
                producer = value.producer()
                graph.insert_before(first, cast) if producer is None else graph.insert_after(producer, cast)
            forms[value, dtype] = made
        return forms[value, dtype]

    positions = {node: _positions(node, model, to) for node in graph if node not in kept}
    for node in tuple(graph):
        halved = positions.get(node, frozenset())
        for place, value in enumerate(node.inputs):
            wanted = to if place in halved else ir.DataType.FLOAT
            if value is not None and value.dtype in (to, ir.DataType.FLOAT) and value.dtype != wanted:
                node.replace_input_with(place, form(value, wanted))
        for value in node.outputs if halved else ():
            if _is_float(value):
                value.dtype = to
    for place, value in enumerate(graph.outputs):
        if value.dtype == to:
            name, value.name = value.name, f"{value.name}/{to.name.lower()}"
            graph.outputs[place] = form(value, ir.DataType.FLOAT)
            graph.outputs[place].name = name


def images_for(
    checkpoint: "Checkpoint", data: str, folder: Path | None = None, calibration: Path | None = None
) -> Images:
    """The first calibration images of `data`, normalised as the network wants them.

    `folder` and `calibration` are as for `compress.data.load.load`.
    """
    from compress.data.load import load_for
    from compress.data.normalise import normalise

    found = load_for(checkpoint.architecture, checkpoint.dataset, data, folder, calibration)
    split = found.learning.calibration
    shown, _ = next(split.batches(IMAGES, np.arange(min(IMAGES, len(split)))))
    images: Images = normalise(shown, found.spec.preprocessing).numpy()
    return images
