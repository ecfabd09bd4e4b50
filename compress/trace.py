"""Following what a network does: its exported call sequence, with a free batch size.

Folding and quantization read it to find what follows what. It is made from the network each time and
never stored: `torch.export.load` can run code.
"""

import contextlib
import io
import logging
import re
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from compress.errors import CompressError

NOT_OWN = (Path(torch.__file__).parent, Path(__file__).parent, Path(sysconfig.get_path("stdlib")))
"""Where code lies that is not the user's: torch, compress, Python itself."""


def trace(network: nn.Module, input_shape: tuple[int, int, int]) -> fx.GraphModule:
    """The network in inference mode as one flat graph of aten calls, for any batch of two or more images.

    Raises CompressError where torch.export cannot follow it, with the line of the user's code it stopped at.
    """
    return follow(network.eval(), input_shape).module()


def follow(network: nn.Module, input_shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """The exported program behind `trace`, of a network that `build` gave: in inference mode, quantized or not."""
    images = torch.zeros(2, *input_shape)
    try:
        with _hushed():
            return torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    except Exception as error:  # torch.export raises errors of many unrelated types for code it cannot follow
        said = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise CompressError(
            f"torch.export cannot follow this network{_place(error)}: {said}. "
            "Data-dependent `if`s and loops, and shapes computed from values, have to be written without them."
        ) from error


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Without the exporter's warnings, and the graphs it prints of what it could not follow: the error says it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def module_of(node: Any) -> str:
    """The name of the module a parameter node belongs to: `layer1.0.conv1` for `layer1.0.conv1.weight`; "" for none."""
    if isinstance(node, fx.Node) and node.op == "get_attr":
        return str(node.target).rpartition(".")[0]
    return ""


def _place(error: BaseException) -> str:
    """Where in the user's own code the exporter stopped, as " at FILE:LINE", or ""."""
    named = [(Path(file), line) for file, line in re.findall(r'File "([^"]+)", line (\d+)', str(error))]
    passed = [(Path(frame.filename), str(frame.lineno)) for frame in traceback.extract_tb(error.__traceback__)]
    for frames in (named, passed):
        own = [(file, line) for file, line in frames if not any(file.is_relative_to(folder) for folder in NOT_OWN)]
        if own:
            file, line = own[-1]
            return f" at {file.name}:{line}"
    return ""
