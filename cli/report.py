"""`compress report`: measurements side by side."""

from pathlib import Path

import click
import rich_click

from . import options, output


@rich_click.command("report")
@click.argument("runs", nargs=-1, required=True, type=options.ANY_PATH, metavar="RUN...")
@click.option("-o", "--output", "stem", type=options.ANY_PATH, help="Write NAME.json, .md, .html and .xml.")
@click.option("--baseline", help="The subject to compare with: its name, or the start of its digest.")
@click.option("--title", help="The report's title.")
@options.as_json
def report(runs: tuple[Path, ...], stem: Path | None, baseline: str | None, title: str | None, as_json: bool) -> None:
    """Set measurements side by side: files measurements.json, or folders of runs.

    Example: compress report runs/digits -o reports/digits
    """
    from compress import document
    from compress.report import rendering
    from compress.report.report import from_recordings

    made = from_recordings(runs, title, baseline)
    written = rendering.write(made, stem) if stem else ()
    value = {"written": [str(path) for path in written], "report": document.plain(made)}
    output.result(value, output.stack(rendering.terminal(made), *(f"wrote {path}" for path in written)), as_json)


COMMANDS = {"report": report}
