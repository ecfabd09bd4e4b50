"""ONNX: one self-contained file that any runtime reads, the same bytes for the same checkpoint.

Every node and every tensor between nodes is named by the module it comes from (`layer1.0.conv1/Conv`), and
nothing else the exporter notes is kept: its stack traces hold paths and source lines of the machine.
"""

import ast
import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import torch
from google.protobuf.message import Message

import compress
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.errors import CompressError
from compress.export.onnx_file import check, inside
from compress.trace import follow

if TYPE_CHECKING:
    from compress.networks import UserNetwork

OPSET = 20
IR_VERSION = 10
MOST_BYTES = onnx.checker.MAXIMUM_PROTOBUF
"""What protobuf, and so a runtime, reads of one message; weights in files beside it would have to be read by path."""
IMAGES, LOGITS = "images", "logits"
SOURCE = "compress.source"
SCOPES = "pkg.torch.onnx.name_scopes"
MOVES_NO_VALUES = ("QuantizeLinear", "DequantizeLinear")


def export(checkpoint: Checkpoint, user: "UserNetwork | None" = None) -> bytes:
    """The checkpoint's network as an ONNX file with a free batch size: `images` (N, C, H, W) in, `logits` (N, classes) out.

    A quantized network keeps its integers: int8 weights and int32 biases behind DequantizeLinear.
    Raises CompressError where the network has an operator ONNX has no word for, does not give logits, or is too large for one file.
    """
    architecture = checkpoint.architecture
    if architecture.prepared is not None:
        raise CompressError(
            "this network is prepared for quantization-aware training, and no runtime has a word for that. "
            "Convert it first (a `convert_qat` step)."
        )
    model = _convert(follow(build(checkpoint, user), architecture.input_shape), architecture.title)
    _require_logits(model.graph, architecture.title)
    _rename(model.graph)
    model.graph.name, model.ir_version = architecture.title, IR_VERSION
    model.producer_name, model.producer_version = "compress", compress.__version__
    proto = ir.to_proto(model)
    _strip(proto)
    entry = proto.metadata_props.add()
    entry.key, entry.value = SOURCE, checkpoint.fingerprint
    if proto.ByteSize() > MOST_BYTES:
        raise CompressError(
            f"{architecture.title} would be an ONNX file of {proto.ByteSize():,} bytes, and a runtime takes at most {MOST_BYTES:,} "
            "at once. Quantize or prune the network first."
        )
    content: bytes = proto.SerializeToString(deterministic=True)
    check(content, f"the export of {architecture.title}")
    return content


def for_batch(content: bytes, batch: int) -> bytes:
    """The graph of checked ONNX bytes for this number of images and no other."""
    model = onnx.load_model_from_string(content)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    fixed: bytes = model.SerializeToString(deterministic=True)
    check(fixed, f"the graph for {batch} images")
    return fixed


def _convert(program: torch.export.ExportedProgram, title: str) -> ir.Model:
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=[IMAGES],
                output_names=[LOGITS],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise CompressError(
            f"{title} cannot be written as ONNX: {_reason(error)}. Write that part of the network with other operators."
        ) from error
    assert exported is not None, "torch.onnx.export returns a program when it is given no file"
    return exported.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings from the user: they speak of its own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause: the one that names the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0].rstrip(".")


def _require_logits(graph: ir.Graph, title: str) -> None:
    """Raise CompressError unless the graph turns N images into one tensor of (N, classes)."""
    shapes = [value.shape for value in graph.outputs]
    shape = shapes[0] if len(shapes) == 1 else None
    if shape is None or len(shape) != 2 or isinstance(shape[0], int) or not isinstance(shape[1], int):
        found = ", ".join(str(tuple(str(extent) for extent in shape)) for shape in shapes if shape is not None)
        raise CompressError(
            f"{title} does not turn N images into logits of shape (N, classes): its outputs are {found}. "
            "A network to export takes one batch of images of any size and returns one tensor."
        )


def _rename(graph: ir.Graph) -> None:
    """Name nodes, and the tensors they compute, by module and operator, and constants by what uses them."""
    constants = [value for name, value in graph.initializers.items() if name.startswith("val_")]
    seen: Counter[str] = Counter()
    for node in ir.traversal.RecursiveGraphIterator(graph):
        title = "/".join(filter(None, (_module(node), node.op_type)))
        seen[title] += 1
        node.name = title if seen[title] == 1 else f"{title}_{seen[title]}"
        for position, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"{node.name}.{position}" if position else node.name
    for value in constants:
        for node, position in value.uses()[:1]:
            value.name = f"{node.name}:{position}"


def _module(node: ir.Node) -> str:
    """The path of the module a node comes from, "" for the network's own forward.

    A node that holds parameters belongs to their module, though the exporter may have merged a batch norm
    into it; one that only changes how numbers are held belongs to where its numbers come from.
    """
    for value in node.inputs:
        if value is not None and value.is_initializer() and value.name and "." in value.name:
            return str(value.name).rpartition(".")[0]
    source = node.inputs[0] if node.op_type in MOVES_NO_VALUES else None
    if source is not None:
        producer = source.producer()
        return _module(producer) if producer is not None else str(source.name)
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    return str(scopes[-2]) if len(scopes) > 1 else ""


def _strip(proto: Message) -> None:
    """Take out, wherever they are, notes on nodes and tensors and the types of what lies between nodes, which follow."""
    for message in (proto, *inside(proto, Message)):
        for field in ("metadata_props", "doc_string", "value_info"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
