"""onnxruntime's own tools for INT8: its pre-processing, and its quantizer told what a target wants."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from compress.errors import CompressError
from compress.lint.graph import ENDS, KINDS, constant, layers, read
from compress.quantize.target import Target
from compress.runtime.kernels import named
from compress.runtime.session import Images

TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
OPSET = 13
"""The first opset whose DequantizeLinear has a scale for each channel."""


def prepared(content: bytes, what: str) -> bytes:
    """The graph after onnxruntime's pre-processing: shapes inferred, batch norms folded, every node with a name."""

    def prepare(output: Path) -> None:
        model = named(onnx.load_model_from_string(content))
        if all(each.version < OPSET for each in model.opset_import if each.domain in ("", "ai.onnx")):
            model = version_converter.convert_version(model, OPSET)
        quant_pre_process(model, output)

    found = written(prepare, what)
    if not weighted(found):
        raise CompressError(
            f"{what} has no convolution and no linear layer with weights of its own, so there is nothing to quantize."
        )
    return found


def weighted(content: bytes) -> list[str]:
    """The names of the nodes that multiply by stored weights."""
    return [str(node.name) for node in layers(read(content)) if constant(node.inputs[1]) is not None]


def static(content: bytes, wanted: Target, excluded: list[str], shown: Iterator[Images], what: str) -> bytes:
    """The graph with Q/DQ, as onnxruntime's quantizer places them around the operators a target computes or carries."""
    graph = onnx.load_model_from_string(content).graph
    stored = {tensor.name for tensor in graph.initializer}
    name = next(each.name for each in graph.input if each.name not in stored)

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, Images] | None:
            return next(({name: images} for images in shown), None)

    def quantizer(output: Path) -> None:
        given = output.with_name("prepared.onnx")
        given.write_bytes(content)
        quantize_static(
            given,
            output,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[
                *(op for op, kind in KINDS.items() if kind in wanted.computed | wanted.carried),
                *ENDS,
            ],
            nodes_to_exclude=excluded,
            per_channel=wanted.weight_scales == "channel",
            activation_type=TYPES[wanted.activations.dtype],
            weight_type=TYPES[wanted.weights.dtype],
            extra_options={
                "ActivationSymmetric": wanted.activations.symmetric,
                "WeightSymmetric": wanted.weights.symmetric,
                "QuantizeBias": wanted.bias == "int32",
            },
        )

    return written(quantizer, what)


def written(tool: Callable[[Path], Any], what: str) -> bytes:
    """What one of onnxruntime's tools writes to the path it is given; it prints nothing, and its failure is a refusal."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        output = Path(folder) / "made.onnx"
        try:
            tool(output)
        except CompressError:
            raise
        except Exception as error:  # they raise what they like, Exception itself among it
            raise CompressError(
                f"onnxruntime's quantizer cannot follow {what}: {' '.join(str(error).split())} "
                "Export it again with a newer opset, for one image size, or quantize the network it was exported from."
            ) from error
        return output.read_bytes()
