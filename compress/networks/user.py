"""A network from a function in the user's own Python file.

The file is the one named on the command line, each time; no checkpoint can name one. What a checkpoint
does hold is the file's digest, so that a file that has changed since is not taken for the same network.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compress import storage
from compress.architecture import Architecture
from compress.errors import CompressError, UsageError, unknown

if TYPE_CHECKING:
    from torch import nn

EXAMPLE = "--network path/net.py:build"


@dataclass(frozen=True)
class UserNetwork:
    """A function without arguments that returns the network, its name, and the SHA-256 of the file it stands in.

    `accept_changed` takes the file even where it is not the one a checkpoint was made with.
    """

    function: Callable[[], Any]
    name: str
    digest: str
    accept_changed: bool = False


class _Content(importlib.abc.SourceLoader):
    """Runs exactly the bytes whose digest was taken: no byte code lying beside them is read, none is written."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content = path, content

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: object) -> bytes:
        return self.content


def split(text: str) -> tuple[Path, str]:
    """`path/net.py:build` as (path, function); raises UsageError for anything else."""
    path, _, function = text.rpartition(":")
    if not path.endswith(".py") or not function.isidentifier():
        raise UsageError(f"{text!r} does not name a function in a Python file: write {EXAMPLE}.")
    return Path(path), function


def load_user(text: str, *, accept_changed: bool = False) -> UserNetwork:
    """Run the file in `path/net.py:build`, as a module of its own, and take the function from it.

    Raises UsageError for other text or a function that is not there, CompressError where the file cannot
    be read or raises.
    """
    path, function = split(text)
    content = storage.read_bytes(path, "network's file")
    digest = storage.digest_bytes(content)
    module = _run(path, content, f"compress_user_{digest[-16:]}")
    functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    if function not in functions:
        raise unknown(f"function in {path.name}", function, functions)
    return UserNetwork(getattr(module, function), function, digest, accept_changed)


def check(name: str) -> None:
    """Any function may be a network; whether it is one shows when it is called."""


def create(architecture: Architecture, user: UserNetwork | None) -> "nn.Module":
    """Call the user's function; refuses another file or function than the architecture was made with."""
    from torch import nn

    if user is None:
        raise UsageError(
            f"this network comes from the function {architecture.name} of your own file, which no checkpoint can run: "
            f"give it again with --network FILE.py:{architecture.name}."
        )
    if user.name != architecture.name:
        raise UsageError(
            f"the checkpoint was made with the function {architecture.name}, and --network names {user.name}. "
            f"Give --network FILE.py:{architecture.name}."
        )
    if user.digest != architecture.code and not user.accept_changed:
        raise CompressError(
            f"the file of {user.name} has changed since this checkpoint was made (its SHA-256 was {_short(architecture.code)}, "
            f"it is {_short(user.digest)}). Give the file as it was; where the change "
            "leaves the network the same, load_user(..., accept_changed=True) takes it."
        )
    try:
        network = user.function()
    except (Exception, SystemExit) as error:
        raise CompressError(f"{user.name}() raised {_said(error)}. It is called without arguments.") from error
    if not isinstance(network, nn.Module):
        raise CompressError(
            f"{user.name}() returned a {type(network).__name__}, not a torch.nn.Module. Return the network."
        )
    return network


def _run(path: Path, content: bytes, name: str) -> ModuleType:
    spec = importlib.util.spec_from_loader(name, _Content(path, content))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling in the file look their own module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CompressError(
            f"{path} cannot be run: it raised {_said(error)}. Repair the file; it runs alone, without its folder on the path."
        ) from error
    return module


def _said(error: BaseException) -> str:
    """An exception in the user's code in one line: its type, its text, and the last line it passed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}: {error}"


def _short(digest: str | None) -> str:
    return (digest or "none").removeprefix("sha256:")[:12]
