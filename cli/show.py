"""`compress show`: what a checkpoint or an artifact is, read without torch."""

from pathlib import Path

import click
import rich_click

from . import options, output


@rich_click.command("show")
@click.argument("file", type=options.FILE)
@options.as_json
def show(file: Path, as_json: bool) -> None:
    """Explain a checkpoint or an artifact: architecture, widths, masks, precision, history, size, digest.

    Example: compress show models/digits.safetensors
    """
    from compress.explain import explain

    found = explain(file)
    rows = [(name, value if isinstance(value, str) else "\n".join(value)) for name, value in found.items() if value]
    drawn = output.table(str(file), ("", ""), [])
    drawn.show_header = False
    for column in drawn.columns:
        column.justify = "left"
    for row in rows:
        drawn.add_row(*row)
    output.result(found, drawn, as_json)


COMMANDS = {"show": show}
