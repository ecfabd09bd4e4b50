"""Reading an ONNX file that anyone may have made: opened once, checked, and handed on as bytes.

A runtime gets these bytes and never the path, so that it cannot follow a link or a reference out of the
file's folder, and runs what was checked.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import external_data_helper, numpy_helper

from compress import storage
from compress.errors import CompressError

SCALES = {"QuantizeLinear": (1,), "DequantizeLinear": (1,), "QLinearConv": (1, 4, 6), "QLinearMatMul": (1, 4, 6)}
"""Which inputs of an operator are scales, by position."""

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)

M = TypeVar("M", bound=Message)
AGAIN = "Copy it whole, or export it again."
EXPORT = (
    "It looks like a checkpoint: compress export makes an ONNX file of one, and the runtime torch runs it as it is."
)


def read(path: Path) -> bytes:
    """The checked bytes of an ONNX file; weights that lie beside it are taken in, so that the bytes are all of it.

    Raises CompressError where the file is not ONNX, damaged, too new, empty, holds NaN or a scale that is
    not above zero, or asks for data outside its own folder.
    """
    content = storage.read_bytes(path, "ONNX file")
    what = f"the ONNX file {path}"
    model = _parse(content, what)
    if _take_in(model, path.parent, what):
        if model.ByteSize() > onnx.checker.MAXIMUM_PROTOBUF:
            raise CompressError(
                f"{what} is above {onnx.checker.MAXIMUM_PROTOBUF:,} bytes with the weights beside it, more than a runtime takes as "
                "bytes. Quantize or prune the network first."
            )
        content = model.SerializeToString()
    _check(model, content, what)
    return content


def check(content: bytes, what: str) -> None:
    """Raise CompressError where `content` is not a whole ONNX file that means something; `what` names it."""
    _check(_parse(content, what), content, what)


def _parse(content: bytes, what: str) -> onnx.ModelProto:
    """The model, of a version that is known here and with something to compute."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        advice = EXPORT if content[8:10] == b'{"' else AGAIN
        raise CompressError(f"{what} is not ONNX, or was cut short. {advice}") from error
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if not model.ir_version or not opsets:
        raise CompressError(f"{what} is not ONNX, or was cut short: it names no version of the format. {AGAIN}")
    opset, highest = opsets.get("ai.onnx", 0), onnx.defs.onnx_opset_version()
    if model.ir_version > onnx.IR_VERSION or opset > highest:
        raise CompressError(
            f"{what} is of IR version {model.ir_version} and opset {opset}, and the installed onnx {onnx.__version__} "
            f"knows up to {onnx.IR_VERSION} and {highest}. Upgrade onnx, or export the file for an older opset."
        )
    if not model.graph.node or not model.graph.input or not model.graph.output:
        raise CompressError(f"{what} computes nothing: its graph has no nodes, inputs or outputs. {AGAIN}")
    return model


def _take_in(model: onnx.ModelProto, folder: Path, what: str) -> bool:
    """Read the tensors that lie in other files into the model; True where there were any.

    onnx opens such a file without following links and refuses one outside `folder`.
    """
    outside = [tensor for tensor in inside(model, onnx.TensorProto) if external_data_helper.uses_external_data(tensor)]
    for tensor in outside:
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (onnx.checker.ValidationError, ValueError, OSError) as error:
            raise CompressError(
                f"{what} keeps the tensor {tensor.name!r} in another file that is refused: {_line(error)} "
                "It has to be a plain file, whole, in the folder of the ONNX file, and no link."
            ) from error
    return bool(outside)


def _check(model: onnx.ModelProto, content: bytes, what: str) -> None:
    """onnx's own checker, then what it does not look at: the numbers."""
    tensors = [tensor for tensor in inside(model, onnx.TensorProto) if tensor.data_type in FLOATS]
    try:
        onnx.checker.check_model(content, full_check=True)
        numbers = [(tensor.name, numpy_helper.to_array(tensor)) for tensor in tensors]
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise CompressError(f"{what} is not valid ONNX: {_line(error)} {AGAIN}") from error
    for name, values in numbers:
        # A single infinity is what padding before a max pool and open-ended clips hold; in weights it is damage.
        if np.isnan(values).any() or (values.size > 1 and not np.isfinite(values).all()):
            raise CompressError(f"{what} holds NaN or infinity in {name!r}. Export it again from a good checkpoint.")
    known = {name: numpy_helper.to_array(tensor) for name, tensor in _constants(model) if tensor.data_type in FLOATS}
    for node in inside(model, onnx.NodeProto):
        for position in SCALES.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            if name in known and not (np.isfinite(known[name]) & (known[name] > 0)).all():
                raise CompressError(
                    f"{what} has a scale that is not above zero: {name!r} of {node.op_type} {node.name!r}. "
                    "Such a layer answers nothing; quantize it again, on images that reach it."
                )


def _constants(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """The tensors that nodes read, by the name they read them under."""
    for graph in inside(model, onnx.GraphProto):
        yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in inside(model, onnx.NodeProto):
        if node.op_type == "Constant":
            yield from ((name, attribute.t) for name, attribute in zip(node.output, node.attribute, strict=False))


def inside(message: Message, kind: type[M]) -> Iterator[M]:
    """Every message of a kind, anywhere in another: subgraphs, functions and sparse tensors are not missed."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if isinstance(value, Message) else value:
                if isinstance(child, kind):
                    yield child
                yield from inside(child, kind)


def _line(error: Exception) -> str:
    """A library's message on one line, ended by a full stop."""
    return " ".join(str(error).split()).rstrip(".") + "."
