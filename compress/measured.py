"""One command's measurement of files, as the recording that a report reads."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from compress import subject
from compress.environment import environment
from compress.errors import UsageError
from compress.measurement import Entry, Recording
from compress.progress import Progress, silent
from compress.runtime import open_session

if TYPE_CHECKING:
    from compress.data.splits import Data
    from compress.networks import UserNetwork
    from compress.parity import Kind
    from compress.runtime.session import Images, Session
    from compress.runtime.views import Views

BY_SUFFIX = {".onnx": "onnxruntime", ".null": "null", ".xml": "openvino", ".engine": "tensorrt"}
"""The runtime that opens a file where none is named; anything else is a checkpoint, for torch."""


def runtime_of(path: Path) -> str:
    """The runtime that opens a file."""
    return BY_SUFFIX.get(path.suffix, "torch")


def evaluate_file(
    path: Path,
    data: str,
    folder: Path | None = None,
    *,
    runtime: str | None = None,
    batch: int = 256,
    tta: "Views" = "none",
    network: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> Recording:
    """The accuracy of a checkpoint or an artifact on the test images of `data`, preprocessed as the file says."""
    from compress.evaluate import on_test

    user, runtime = _user(network), runtime or runtime_of(path)
    entry = subject.entry(path, environment(threads or 1), user)
    found = data_of(path, data, folder)
    session = open_session(runtime, path, threads=threads or 1, device=device, user=user)
    accuracy = on_test(session, found, runtime=runtime, batch=batch, tta=tta, progress=progress)
    session.close()
    measurements = (*entry.measurements, *accuracy.measurements)
    return Recording((dataclasses.replace(entry, measurements=measurements, correct=accuracy.correct),))


def compare_files(
    before: Path,
    after: Path,
    data: str | None,
    folder: Path | None = None,
    *,
    kind: "Kind | None" = None,
    images: int = 128,
    network: str | None = None,
) -> Recording:
    """Parity of one hop, on validation images; `kind` is what it claims, found from the two files where it is None."""
    from compress import parity

    if data is None:
        raise UsageError("parity is asked on real images: give --data NAME.")
    user = _user(network)
    entry, reference = subject.entry(after, environment(1), user), subject.entry(before, environment(1), user)
    claimed = kind or _claim(reference, entry)
    found = data_of(before, data, folder)
    first, second = (_open(path, user, claimed != "integer") for path in (before, after))
    hop = parity.compare(f"{before.name} -> {after.name}", first, second, shown(found, images), claimed)
    return Recording((dataclasses.replace(entry, parity=(hop,)),))


def shown(data: "Data", count: int) -> "Images":
    """Up to `count` images (N, C, H, W), normalised, that parity is asked on: those for validation, then those to calibrate with."""
    from compress.data.normalise import normalise
    from compress.data.splits import Joined

    pixels, _ = next(Joined(data.learning.validation, data.learning.calibration).batches(count))
    found: Images = normalise(pixels, data.spec.preprocessing).numpy()
    return found


def data_of(path: Path, name: str, folder: Path | None = None, calibration: Path | None = None) -> "Data":
    """A data set as the network in a file is to be shown it: preprocessed and cut as the file says.

    `calibration` is a folder of images that takes the place of the calibration split.
    """
    from compress import checkpoint
    from compress.data.load import load, load_for
    from compress.export.artifact import read_sidecar, sidecar

    if path.suffix in BY_SUFFIX:
        spec = read_sidecar(path).dataset if sidecar(path).exists() else None
        return load(name, folder, spec.split_seed if spec else 0, calibration, spec.preprocessing if spec else None)
    described = checkpoint.header(path).description
    return load_for(described.architecture, described.dataset, name, folder, calibration)


def _claim(before: Entry, after: Entry) -> "Kind":
    """The same precision on both sides claims the same function; another one a change."""
    if before.subject.precision != after.subject.precision:
        return "changed"
    return "exact" if after.subject.precision == "fp32" else "integer"


def _open(path: Path, user: "UserNetwork | None", optimise: bool) -> "Session":
    if runtime_of(path) == "onnxruntime":
        from compress.export import onnx_file
        from compress.runtime.onnxruntime import OnnxSession

        return OnnxSession(onnx_file.read(path), optimise=optimise, what=str(path))
    return open_session(runtime_of(path), path, user=user)


def _user(network: str | None) -> "UserNetwork | None":
    from compress.networks import load_user

    return load_user(network) if network else None
