"""`compress gate`: a report held against limits."""

from pathlib import Path

import click
import rich_click

from . import options, output


@rich_click.command("gate")
@click.argument("report", type=options.FILE)
@click.option("--limits", type=options.FILE, help="YAML file of limits.")
@click.option("--preset", help="Limits others have set: mlperf-tiny-ic.")
@options.limit_options
@click.option(
    "--inconclusive",
    type=click.Choice(["inconclusive", "fail", "warn"]),
    default="inconclusive",
    show_default=True,
    help="What to make of measurements that do not decide: exit 4, 1 or 0.",
)
@click.option("--init", type=options.FILE, help="Write a limits file that this report passes, with margins, and stop.")
@click.option("--junit", type=options.FILE, help="Write the verdict as JUnit XML too.")
@options.as_json
def gate(
    report: Path,
    limits: Path | None,
    preset: str | None,
    inconclusive: str,
    init: Path | None,
    junit: Path | None,
    as_json: bool,
    **demands: str | None,
) -> int:
    """Check a report against limits. The exit code is the verdict: 0 passed, 1 failed, 4 inconclusive.

    Examples:

        compress gate reports/digits.json --limits gate.yaml

        compress gate reports/digits.json --max-accuracy-drop 0.5pp --min-speedup 3x --max-size 100KB
    """
    from compress import document, storage
    from compress.gate import EXIT_CODES
    from compress.gate_rendering import terminal
    from compress.judge import judge, start

    if init:
        options.refuse_existing(init)
        storage.write_text(init, start(report))
        output.result({"output": str(init)}, f"wrote {init}", as_json)
        return 0
    verdict = judge(report, limits, preset, demands, inconclusive, junit)  # type: ignore[arg-type]  # one of click's choices
    output.result(document.plain(verdict), terminal(verdict), as_json)
    return EXIT_CODES[verdict.outcome]


COMMANDS = {"gate": gate}
