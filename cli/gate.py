"""`compress gate`: a report held against limits."""

from pathlib import Path

import click
import rich_click

from compress.limit import PRESETS

from . import options, output

PRESETS_HELP = "; ".join(f"{name}: {preset.meaning} ({preset.source})" for name, preset in PRESETS.items())


@rich_click.command("gate")
@click.argument("report", type=options.FILE)
@click.option("--limits", type=options.FILE, help="YAML file of limits.")
@click.option("--preset", metavar="NAME", help=f"Limits others have set. {PRESETS_HELP}.")
@options.limit_options
@click.option(
    "--against", type=options.FILE, help="Hold relative limits against this recorded report, not the baseline."
)
@click.option("--candidate", metavar="NAME", help="Hold the options' limits for this candidate. [default: for each]")
@click.option("--runtime", metavar="NAME", help="Hold them for this runtime. [default: for each measured]")
@click.option("--batch", type=click.IntRange(1), help="Hold them for this batch size. [default: for each measured]")
@click.option(
    "--level", type=click.Choice(["error", "warn"]), help="Whether breaking them fails the gate. [default: error]"
)
@click.option(
    "--inconclusive",
    type=click.Choice(["inconclusive", "fail", "warn"]),
    default="inconclusive",
    show_default=True,
    help="What to make of measurements that do not decide: exit 4, 1 or 0.",
)
@click.option("--any-machine", is_flag=True, help="Judge times recorded on another machine too.")
@click.option("--init", type=options.FILE, help="Write a limits file that this report passes, with margins, and stop.")
@click.option("--junit", type=options.FILE, help="Write the verdict as JUnit XML too.")
@options.as_json
def gate(
    report: Path,
    limits: Path | None,
    preset: str | None,
    against: Path | None,
    candidate: str | None,
    runtime: str | None,
    batch: int | None,
    level: str | None,
    inconclusive: str,
    any_machine: bool,
    init: Path | None,
    junit: Path | None,
    as_json: bool,
    **demands: str | None,
) -> int:
    """Check a report against limits. The exit code is the verdict: 0 passed, 1 failed, 4 inconclusive.

    A limit such as --max-size takes a value, 500KB, or a multiple of the baseline's, 0.5x.

    Examples:

        compress gate reports/digits.json --limits gate.yaml

        compress gate reports/digits.json --max-accuracy-drop 0.5pp --min-speedup 3x --max-size 100KB

        compress gate today.json --against reports/main.json --max-size 1.02x --max-accuracy-drop 0.2pp
    """
    import json

    from compress import storage
    from compress.gate import EXIT_CODES
    from compress.gate_rendering import dumps, terminal
    from compress.judge import Asked, judge, start

    options.refuse_overwriting(junit, report)
    if init:
        options.refuse_existing(init)
        storage.write_text(init, start(report))
        output.result({"output": str(init)}, f"wrote {init}", as_json)
        return 0
    scope = {
        "against": str(against) if against else None, "candidate": candidate, "runtime": runtime, "batch": batch, "level": level,
    }  # fmt: skip
    asked = Asked(limits, preset, demands, scope)
    verdict = judge(report, asked, inconclusive, any_machine, junit)  # type: ignore[arg-type]  # one of click's choices
    output.result(json.loads(dumps(verdict)), terminal(verdict), as_json)
    return EXIT_CODES[verdict.outcome]


COMMANDS = {"gate": gate}
