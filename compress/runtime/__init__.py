"""What can answer images: one table of runtimes, and one way to open a file with any of them."""

import pkgutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from compress.errors import UsageError, missing_extra, unknown
from compress.runtime.session import Session

if TYPE_CHECKING:
    from compress.networks import UserNetwork

RUNTIMES = {
    "torch": "compress.runtime.torch:open_checkpoint",
    "onnxruntime": "compress.runtime.onnxruntime:open_onnx",
    "openvino": "compress.runtime.openvino:open_openvino",
    "tensorrt": "compress.runtime.tensorrt:open_tensorrt",
    "null": "compress.runtime.null:open_null",
}
"""Each runtime and the function that opens a file for it: (path, threads=, device=, user=) -> Session."""

WAYS = "compress.runtime.torch_variant:variant"
"""What reads the words behind `torch:`."""

Opener = Callable[..., Session]


def opener(runtime: str) -> Opener:
    """The function that opens files for a runtime, with the libraries it needs imported.

    `torch:compile+bf16` names torch with a way to run it (see `torch_variant`).
    Raises UsageError for an unknown runtime or way, ResourceError where its library is not installed.
    """
    name, colon, way = runtime.partition(":")
    if name not in RUNTIMES or (colon and not (way and name == "torch")):
        raise unknown("runtime", runtime, [*RUNTIMES, "torch:WAY"])
    try:
        found = cast(Opener, pkgutil.resolve_name(RUNTIMES[name]))
        return partial(found, way=pkgutil.resolve_name(WAYS)(way)) if way else found
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "compress":
            raise
        raise missing_extra(error.name, runtime, f"the runtime {runtime}") from error


def open_session(
    runtime: str, path: Path, *, threads: int = 1, device: str = "cpu", user: "UserNetwork | None" = None
) -> Session:
    """Open a file as a session: `torch` takes a checkpoint, `onnxruntime` an ONNX file.

    `threads` is how many CPU threads it computes with, `user` the function a network of the user's own
    comes from. Raises CompressError where the file cannot be opened, ResourceError where the device is not
    there: a session never runs on another device than the one asked for.
    """
    if threads < 1:
        raise UsageError(f"{threads} threads were asked for, and a session needs at least one.")
    return opener(runtime)(path, threads=threads, device=device, user=user)
