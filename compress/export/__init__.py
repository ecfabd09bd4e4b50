"""From a checkpoint to a file that some runtime can load, with a sidecar that says where it came from."""

import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import compress
from compress import storage
from compress.errors import unknown
from compress.export.artifact import Artifact, write_sidecar

if TYPE_CHECKING:
    from compress.checkpoint import Checkpoint
    from compress.networks import UserNetwork

EXPORTERS = {"onnx": "compress.export.onnx:export"}
"""Each format and the function that turns a checkpoint into a file's bytes: (checkpoint, user) -> bytes."""

TOOLS = ("torch", "onnx", "onnxscript", "onnx-ir")
"""The packages whose versions decide what is in the file."""

Exporter = Callable[["Checkpoint", "UserNetwork | None"], bytes]


def export(checkpoint: "Checkpoint", path: Path, format: str = "onnx", user: "UserNetwork | None" = None) -> Artifact:
    """Write the network of a checkpoint as a deployable file, and its sidecar after it.

    The same checkpoint gives the same bytes. `user` is the network function named on the command line.
    Raises CompressError where the network cannot be exported; nothing is written then.
    """
    if format not in EXPORTERS:
        raise unknown("format", format, EXPORTERS)
    module, _, function = EXPORTERS[format].partition(":")
    exporter = cast(Exporter, getattr(importlib.import_module(module), function))
    content = exporter(checkpoint, user)
    architecture = checkpoint.architecture
    counts = count(architecture)
    artifact = Artifact(
        path=path,
        format=format,
        precision=architecture.precision,
        target=architecture.quantization.target if architecture.quantization else None,
        network=architecture.title,
        input_shape=architecture.input_shape,
        source=checkpoint.fingerprint,
        digest=storage.digest_bytes(content),
        size_bytes=len(content),
        parameters=counts.parameters,
        macs=counts.macs,
        dataset=checkpoint.dataset,
        tools={"compress": compress.__version__} | {tool: importlib.metadata.version(tool) for tool in TOOLS},
    )
    storage.write_bytes(path, content)
    write_sidecar(artifact)
    return artifact
