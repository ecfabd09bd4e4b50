"""What was exported, as a value, and the JSON file beside it that says so: `FILE.onnx.json`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic.dataclasses import dataclass

from compress import document, storage
from compress.architecture import STRICT
from compress.data.spec import DatasetSpec
from compress.errors import CompressError, Refusal

KIND, FORMAT = "compress artifact", 1

FileName = Annotated[Path, pydantic.PlainSerializer(lambda path: path.name, return_type=str)]
"""A path of which only the file's own name is ever written down."""

FileWord = Annotated[str, pydantic.Field(pattern=r"^[^/\\]+$")]
"""The name of a file in the same folder."""


@dataclass(frozen=True, config=STRICT)
class Artifact:
    """A file some runtime can load, and where it comes from.

    `source` is the fingerprint of the checkpoint, or the digest of the ONNX file where there is none; `network` its
    architecture's title, `target` what an INT8 file was quantized for. `input_shape` is (channels, height, width), `macs` counts one image. `dataset`
    carries what is done to an image before the network sees it. `tools` are the versions that wrote the file.
    `parts` are the files beside it that it is not whole without, each with its digest; `size_bytes` counts them.
    `settings` say how it was made, and `kept` the layers that stay FP32 where others do not. `sparsity` is the
    share of the checkpoint's weights that are zero, in per cent.
    """

    path: FileName
    format: str
    precision: str
    target: str | None
    network: str
    input_shape: tuple[int, int, int]
    source: str
    digest: str
    size_bytes: int
    parameters: int
    macs: int
    dataset: DatasetSpec | None
    tools: dict[str, str]
    parts: dict[FileWord, str] = pydantic.Field(default_factory=dict)
    settings: dict[str, str] = pydantic.Field(default_factory=dict)
    kept: tuple[Refusal, ...] = ()
    sparsity: float | None = pydantic.Field(default=None, ge=0, le=100)


@dataclass(frozen=True, config=STRICT)
class Sidecar:
    """The document beside an artifact."""

    artifact: Artifact


def sidecar(path: Path) -> Path:
    """Where the sidecar of the artifact at `path` lies."""
    return path.with_name(path.name + ".json")


def write_sidecar(artifact: Artifact) -> None:
    """Write the sidecar of an artifact that is already in its place."""
    document.write(sidecar(artifact.path), KIND, FORMAT, Sidecar(artifact))


def read_sidecar(path: Path) -> Artifact:
    """What the sidecar says of the artifact at `path`.

    Raises CompressError where either is missing, or the file is not the one the sidecar was written for.
    """
    digest = _digest(path)
    place = sidecar(path)
    if not place.exists():
        raise CompressError(
            f"{path} has no {place.name} beside it, so nothing says where it comes from or what its images look "
            "like. Copy both files together, or export the checkpoint again."
        )
    artifact = document.read(place, KIND, FORMAT, Sidecar).artifact
    _require_same(path, place, digest, artifact.digest)
    for name, expected in artifact.parts.items():
        _require_same(path.with_name(name), place, _digest(path.with_name(name)), expected)
    return dataclasses.replace(artifact, path=path)


def _digest(path: Path) -> str:
    try:
        return storage.digest_file(path)
    except OSError as error:
        raise storage.unreadable(path, "artifact", error) from error


def _require_same(path: Path, place: Path, digest: str, expected: str) -> None:
    if digest != expected:
        raise CompressError(
            f"{path} is not the file that {place.name} describes: its digest is {digest}, and {expected} was "
            "expected. It was changed after the export, or the export was interrupted; export the checkpoint again."
        )
