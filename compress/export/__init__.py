"""From a checkpoint to a file that some runtime can load, with a sidecar that says where it came from."""

import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import compress
from compress import storage
from compress.errors import CompressError, Refusal, UsageError, unknown
from compress.export.artifact import Artifact, write_sidecar
from compress.export.made import Made
from compress.export.settings import DEFAULT, Settings
from compress.quantize.target import SIMULATED, simulated

if TYPE_CHECKING:
    from compress.checkpoint import Checkpoint
    from compress.networks import UserNetwork
    from compress.runtime.session import Images

EXPORTERS = {
    "onnx": "compress.export.made:as_it_is",
    "openvino": "compress.export.openvino:made",
    "tensorrt": "compress.export.tensorrt:made",
}
"""Each format and the function that makes its files of an ONNX graph: (ONNX bytes, settings, path) -> Made."""

TOOLS = ("torch", "onnx", "onnxscript", "onnx-ir")
"""The packages whose versions decide what is in the ONNX graph."""

Exporter = Callable[[bytes, Settings, Path], Made]


def export(
    checkpoint: "Checkpoint",
    path: Path,
    format: str = "onnx",
    user: "UserNetwork | None" = None,
    settings: Settings = DEFAULT,
    images: "Images | None" = None,
) -> Artifact:
    """Write the network of a checkpoint as a deployable file, and its sidecar after it.

    The same checkpoint gives the same bytes, but for an engine. `user` is the network function named on the
    command line. `images` are normalised calibration images, which FP16 needs to find the layers it cannot hold.
    Raises CompressError where the network cannot be exported, UsageError for a precision that the checkpoint
    does not have and that is not half precision; nothing is written then.
    """
    from compress.build import structure
    from compress.export.onnx import export as to_onnx
    from compress.export.onnx import for_batch
    from compress.macs import macs, parameters
    from compress.sparsity import sparsity

    if format not in EXPORTERS:
        raise unknown("format", format, EXPORTERS)
    module, _, function = EXPORTERS[format].partition(":")
    exporter = cast(Exporter, getattr(importlib.import_module(module), function))
    architecture = checkpoint.architecture
    if simulated(architecture):
        raise CompressError(
            f"this checkpoint is quantized for the target torch ({SIMULATED}), and no runtime computes on its integers. "
            "Evaluate it as it is, or quantize the checkpoint before it for a runtime: --target onnxruntime-cpu."
        )
    if settings.precision not in (None, "fp16", "bf16", architecture.precision):
        raise UsageError(
            f"{settings.precision} was asked for, and the checkpoint is held in {architecture.precision}. "
            "Give a checkpoint that compress quantize wrote for int8, and the one before it for fp32."
        )
    content, kept = _in_precision(to_onnx(checkpoint, user), settings, images)
    if settings.batch is not None:
        content = for_batch(content, settings.batch)
    made = exporter(content, settings, path)
    floating = structure(architecture, user)
    artifact = Artifact(
        path=path,
        format=format,
        precision=settings.precision or architecture.precision,
        target=architecture.quantization.target if architecture.quantization else None,
        network=architecture.title,
        input_shape=architecture.input_shape,
        source=checkpoint.fingerprint,
        digest=storage.digest_bytes(made.content),
        size_bytes=len(made.content) + sum(map(len, made.parts.values())),
        parameters=parameters(floating),
        macs=macs(floating, architecture.input_shape),
        dataset=checkpoint.dataset,
        tools={"compress": compress.__version__}
        | {tool: importlib.metadata.version(tool) for tool in TOOLS}
        | dict(made.tools),
        parts={name: storage.digest_bytes(part) for name, part in made.parts.items()},
        settings=dict(made.settings) | ({} if settings.batch is None else {"batch": str(settings.batch)}),
        kept=kept,
        sparsity=sparsity(checkpoint.weights),
    )
    for name, part in {**made.parts, **made.beside}.items():
        storage.write_bytes(path.with_name(name), part)
    storage.write_bytes(path, made.content)
    write_sidecar(artifact)
    return artifact


def _in_precision(content: bytes, settings: Settings, images: "Images | None") -> tuple[bytes, tuple[Refusal, ...]]:
    """The graph in half precision where that was asked for, and the layers that stay FP32."""
    if settings.precision != "fp16" and settings.precision != "bf16":
        return content, ()
    from compress.export.half import convert

    half = convert(content, settings.precision, images)
    return half.content, half.kept
