"""What a command says: its result on stdout, how far it is on stderr, and what went wrong in one paragraph.

With --json, stdout holds exactly one JSON document, also for an error.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from compress.errors import CheckFailed, CompressError, Inconclusive, ResourceError, UsageError
from compress.progress import Progress, silent

PLAIN_INTERVAL = 10.0
"""Seconds between lines of progress where stderr is no terminal."""


def result(value: dict[str, Any], human: object, as_json: bool) -> None:
    """Print a command's one result: `value` as JSON, or `human` (text or anything rich can draw)."""
    if as_json:
        click.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        Console(highlight=False).print(human, markup=False, soft_wrap=isinstance(human, str))


def say(line: str) -> None:
    """Tell on stderr, where progress goes, that something is finished."""
    Console(stderr=True, highlight=False).print(line, markup=False, style="dim")


def stack(*parts: object) -> Group:
    """Several things to draw, one under the other."""
    return Group(*(Text(part) if isinstance(part, str) else part for part in parts))  # type: ignore[arg-type]  # anything rich can draw


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is words and whose others are figures."""
    drawn = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def failure(error: BaseException, as_json: bool) -> int:
    """Print an error and return the exit code it ends in."""
    code = exit_code(error)
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if as_json:
        click.echo(
            json.dumps(
                {"error": {"kind": _kind(error), "message": message, "exit_code": code}}, indent=1, ensure_ascii=False
            )
        )
    else:
        console = Console(stderr=True, highlight=False)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            console.print(error.ctx.get_usage(), markup=False)
        console.print("Error: ", style="bold red", end="")
        console.print(message, markup=False)
    return code


def exit_code(error: BaseException) -> int:
    """0 done or passed, 1 a check said no, 2 usage, 3 could not do it, 4 inconclusive, 5 the environment, 130 interrupted."""
    if isinstance(error, CompressError):
        return error.exit_code
    if isinstance(error, click.UsageError):
        return UsageError.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return 130
    if isinstance(error, MemoryError | OSError):
        return ResourceError.exit_code
    return CompressError.exit_code


def _kind(error: BaseException) -> str:
    words: dict[type[BaseException], str] = {
        UsageError: "usage", CheckFailed: "check failed", Inconclusive: "inconclusive", ResourceError: "environment",
        click.UsageError: "usage", MemoryError: "environment", OSError: "environment",
    }  # fmt: skip
    return next((word for kind, word in words.items() if isinstance(error, kind)), "refused")


@contextlib.contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A progress function that draws bars with time left on a terminal, and writes a line now and then elsewhere."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _bars() as draw:
            yield draw
    else:
        yield _Lines()


class _Lines:
    """Progress for logs: a line when a task starts, ends, and every ten seconds between."""

    def __init__(self) -> None:
        self.task, self.started, self.last = "", 0.0, 0.0

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if task != self.task:
            self.task, self.started, self.last = task, now, 0.0
        if done >= total or now - self.last >= PLAIN_INTERVAL:
            self.last = now
            seconds = (now - self.started) / done * (total - done) if done else 0.0
            left = f", {seconds:.0f} s left" if seconds >= 1 else ""
            click.echo(f"{task}: {done}/{total}{left}{' ' + detail if detail else ''}", err=True)


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    with Bars(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=30)),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[detail]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=2)),
        console=Console(stderr=True),
        expand=True,
    ) as bars:
        known: dict[str, TaskID] = {}

        def draw(task: str, done: int, total: int, detail: str = "") -> None:
            if task not in known or (bars.tasks[known[task]].finished and done < total):
                known[task] = bars.add_task(task, total=total, detail="")
            bars.update(known[task], completed=done, total=total, detail=detail)

        yield draw
