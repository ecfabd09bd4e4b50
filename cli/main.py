"""`compress COMMAND`: finds the command, imports only its file, and turns every failure into a message and a code."""

import importlib
import os
import sys
import traceback
from typing import NoReturn

import click
import rich_click

from compress import __version__
from compress.errors import CompressError, unknown

from . import output

COMMANDS = {
    "import": "import_weights",
    "train": "steps",
    "sensitivity": "sensitivity",
    "prune": "steps",
    "sparsify": "steps",
    "fold": "steps",
    "quantize": "steps",
    "export": "export",
    "lint": "lint",
    "evaluate": "evaluate",
    "parity": "parity",
    "benchmark": "benchmark",
    "report": "report",
    "compare": "compare",
    "explain": "explain",
    "gate": "gate",
    "run": "run",
    "recipes": "recipes",
    "show": "show",
    "env": "env",
}
"""Each command and the file it lives in, in the order the work is done."""

# Options as two columns: three leave the words no room in a terminal of 80 columns.
rich_click.rich_click.SHOW_METAVARS_COLUMN = False
rich_click.rich_click.APPEND_METAVARS_HELP = True

FAILURES = (CompressError, click.ClickException, click.Abort, KeyboardInterrupt, MemoryError, OSError)


class Commands(rich_click.RichGroup):
    """A group that imports a command's file only when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order the work is done."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; a misspelt one gets the nearest names."""
        if cmd_name not in COMMANDS:
            raise unknown("command", cmd_name, COMMANDS)
        commands: dict[str, click.Command] = importlib.import_module(f".{COMMANDS[cmd_name]}", __package__).COMMANDS
        return commands[cmd_name]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `compress recipes`, or `compress COMMAND --help` for examples. Shell completion: see docs/commands.md.",
)
@click.version_option(__version__, prog_name="compress")
def compress() -> None:
    """Make a trained CNN small and fast where it will run, and prove it."""


def main() -> NoReturn:
    """Run the command line and exit with its code; a failure a user can cause is a message, never a traceback."""
    as_json = "--json" in sys.argv[1:]
    try:
        code = compress.main(prog_name="compress", standalone_mode=False)
        code = code if isinstance(code, int) else 0
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except FAILURES as error:
        code = output.failure(error, as_json)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            code = output.failure(MemoryError(f"{error} Lower the batch."), as_json)
        else:
            traceback.print_exc()
            code = output.failure(
                CompressError(
                    f"this is a fault of compress, not yours ({type(error).__name__}: {error}). Please report it with the lines above and `compress env`."
                ),
                as_json,
            )
    sys.exit(code)
