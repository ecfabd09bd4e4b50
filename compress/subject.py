"""What is known of a file before anything is timed: what it is, where it comes from, its size and its counts."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from compress import storage
from compress.export import artifact
from compress.measurement import Entry, Environment, Layer, Measurement, Subject
from compress.quantize.target import SIMULATED, simulated
from compress.sensitivity import kept

if TYPE_CHECKING:
    from compress.networks import UserNetwork

UNKNOWN = "unknown"
NEVER_ALONE = (".engine", ".xml")
"""Endings of artifacts that are not read without their sidecar."""
PIECE = 2**20
"""Bytes of a file that are packed at a time."""


def entry(path: Path, environment: Environment, user: "UserNetwork | None" = None) -> Entry:
    """The entry of a checkpoint, or of an artifact with its sidecar: its size, parameters, MACs, sparsity and layers.

    With it go the sensitivities of the same checkpoint that lie in the file's folder.
    An ONNX file of another tool has no sidecar: its counts are missing, and a note says so.
    Raises CompressError where the file is neither, or another artifact without its sidecar.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise storage.unreadable(path, "file", error) from error
    notes: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    if path.suffix == ".onnx":
        from compress.export import onnx_file, onnx_layers

        layers = onnx_layers.layers(onnx_file.read(path))
    if artifact.sidecar(path).exists() or path.suffix in NEVER_ALONE:
        subject, counts = _artifact(path)
    elif path.suffix == ".onnx":
        subject, counts = Subject(path.name, storage.digest_file(path), UNKNOWN, path.stem, "onnx", UNKNOWN), {}
        missing = artifact.sidecar(path).name
        notes = (f"{missing} is missing, so parameters, MACs and where the file comes from are not known",)
    elif path.suffix == ".null":
        subject, counts = Subject(path.name, storage.digest_file(path), UNKNOWN, "null", "null", UNKNOWN), {}
    else:
        subject, counts, layers, notes = _checkpoint(path, user)
    measurements = tuple(Measurement(metric, (float(count),)) for metric, count in {"size": size, **counts}.items())
    sensitivities = kept(path.parent, subject.fingerprint) if subject.fingerprint != UNKNOWN else ()
    return Entry(subject, environment, measurements, layers=layers, notes=notes, sensitivities=sensitivities)


def compressed_size(path: Path) -> int:
    """Bytes of a file, and of the parts it is not whole without, each as gzip packs it."""
    parts = artifact.read_sidecar(path).parts if artifact.sidecar(path).exists() else {}
    return sum(storage.gzipped(_pieces(each)) for each in (path, *(path.with_name(name) for name in parts)))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _checkpoint(
    path: Path, user: "UserNetwork | None"
) -> tuple[Subject, dict[str, float], tuple[Layer, ...], tuple[str, ...]]:
    from compress import checkpoint
    from compress.build import structure
    from compress.layers import layers
    from compress.macs import macs, parameters
    from compress.sparsity import sparsity

    found = checkpoint.load(path)
    architecture = found.architecture
    network = structure(architecture, user)
    subject = Subject(
        path.name,
        storage.digest_file(path),
        found.fingerprint,
        architecture.title,
        "checkpoint",
        architecture.precision,
    )
    counts = {
        "parameters": float(parameters(network)),
        "macs": float(macs(network, architecture.input_shape)),
        "sparsity": sparsity(found.weights),
    }
    return subject, counts, layers(found, user), ((f"{path.name} is {SIMULATED}",) if simulated(architecture) else ())


def _artifact(path: Path) -> tuple[Subject, dict[str, float]]:
    found = artifact.read_sidecar(path)
    subject = Subject(path.name, found.digest, found.source, found.network, found.format, found.precision)
    known = {} if found.sparsity is None else {"sparsity": found.sparsity}
    return subject, {"size": found.size_bytes, "parameters": found.parameters, "macs": found.macs, **known}
