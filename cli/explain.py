"""`compress explain`: why a candidate is not as many times faster as it has fewer MACs."""

from pathlib import Path

import click
import rich_click

from . import options, output


@rich_click.command("explain")
@click.argument("report", type=options.FILE)
@options.as_json
def explain(report: Path, as_json: bool) -> None:
    """Say why the speed-ups in a report are not those of the MACs, from what was measured: each cause with its figures.

    Example: compress explain reports/main.json
    """
    from compress.report import why
    from compress.report.report import read

    found = why.explain(read(report))
    output.result(why.plain(found), why.terminal(found), as_json)


COMMANDS = {"explain": explain}
