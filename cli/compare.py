"""`compress compare`: two reports side by side."""

from pathlib import Path

import click
import rich_click

from . import options, output


@rich_click.command("compare")
@click.argument("reports", nargs=2, type=options.FILE, metavar="FIRST SECOND")
@click.option("-o", "--output", "output_file", type=options.FILE, help="Write the comparison as Markdown.")
@options.as_json
def compare(reports: tuple[Path, Path], output_file: Path | None, as_json: bool) -> None:
    """Set two reports side by side, such as yesterday's and today's: what got better, what worse, and what only moved.

    Example: compress compare reports/main.json runs/today/report.json
    """
    import json

    from compress import storage
    from compress.report import compare as library
    from compress.report.report import read

    options.refuse_overwriting(output_file, *reports)
    before, after = (read(path) for path in reports)
    found = library.compare(before, after)
    if output_file:
        storage.write_text(output_file, library.markdown(found))
    output.result(json.loads(library.dumps(found)), library.terminal(found), as_json)


COMMANDS = {"compare": compare}
