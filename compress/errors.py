"""What can go wrong for a user, and the exit code each kind of failure ends in.

    CompressError          3  could not do it: an input refused, a network or operator not supported
    ├── UsageError         2  the words were wrong: a command, a recipe, a unit, a name
    ├── CheckFailed        1  a check said no: a limit violated, parity broken, a lint finding
    ├── Inconclusive       4  the measurements do not decide
    └── ResourceError      5  the environment's fault: memory, disk, a missing extra

A message says what was asked, why it cannot be, and what to do.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class CompressError(Exception):
    """A failure the user can cause; its text is all they need to repair it."""

    exit_code = 3


class UsageError(CompressError):
    """The request itself is wrong; nothing was started."""

    exit_code = 2


class CheckFailed(CompressError):
    """Everything ran, and the answer is no."""

    exit_code = 1


class Inconclusive(CompressError):
    """Everything ran, and the measurements do not decide."""

    exit_code = 4


class ResourceError(CompressError):
    """The machine, not the request: out of memory or disk, or a package that is not installed."""

    exit_code = 5


@dataclass(frozen=True)
class Refusal:
    """A layer that a step left alone, and the reason."""

    layer: str
    reason: str


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The choices that look most like `name`, best first; empty when none comes near."""
    return difflib.get_close_matches(name, list(choices), n=count, cutoff=0.5)


def unknown(kind: str, name: str, choices: Iterable[str]) -> UsageError:
    """The error for a name that is not in a table: the nearest ones, or all where they are few."""
    known = sorted(choices)
    near = nearest(name, known)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    listed = f"There are: {', '.join(known)}." if len(known) <= 30 else f"There are {len(known)}."
    return UsageError(f"unknown {kind} {name!r}{': ' + hint if hint else '.'} {listed}")


def missing_extra(package: str, extra: str, purpose: str) -> ResourceError:
    """The error for an optional library that is not installed; names the extra that brings it."""
    return ResourceError(
        f"{purpose} needs the package {package!r}, which is not installed. "
        f"Install it with: python -m pip install 'compress-cnn[{extra}]'"
    )
