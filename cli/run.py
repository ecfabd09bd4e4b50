"""`compress run`: a whole recipe."""

from pathlib import Path

import click
import rich_click

from . import options, output


@rich_click.command("run")
@click.argument("recipe")
@click.option(
    "-o",
    "--output",
    "folder",
    type=options.FOLDER,
    help="Folder for everything that is made; started again, it goes on from there.",
)
@click.option("--checkpoint", type=options.FILE, help="Checkpoint to start from, where the recipe names no weights.")
@options.data
@options.data_folder
@options.calibration
@options.network
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@options.seed
@options.device
@options.threads
@options.as_json
def run(
    recipe: str,
    folder: Path | None,
    checkpoint: Path | None,
    data: str | None,
    data_folder: Path | None,
    calibration: Path | None,
    network: str | None,
    dry_run: bool,
    seed: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Run a recipe: train, prune, recover, fold, quantize, export, measure, report, and check its limits.

    RECIPE is a YAML file, or the name of one that comes with compress. The exit code is the gate's verdict.

    Example: compress run digits --checkpoint models/digits.safetensors -o runs/digits
    """
    from compress import document
    from compress import recipe as recipes
    from compress.errors import UsageError

    path = recipes.find(recipe)
    parsed = recipes.read(path)
    from compress.execute import Given, execute, plan

    given = Given(path.parent, checkpoint, data, data_folder, calibration, network, seed, device)
    if dry_run:
        lines = plan(parsed, given)
        output.result({"plan": lines}, "\n".join(lines), as_json)
        return 0
    if folder is None:
        raise UsageError("where shall everything go? Give -o FOLDER.")
    from compress.device import use
    from compress.gate import EXIT_CODES
    from compress.gate_rendering import terminal
    from compress.progress import unsaid
    from compress.report import rendering

    use(device, threads)
    with output.progress(as_json) as progress:
        outcome = execute(parsed, folder, given, progress, unsaid if as_json else output.say)
    value = {
        "folder": str(folder),
        "written": [str(path) for path in outcome.written],
        "gate": document.plain(outcome.verdict),
    }
    where = f"The report: {folder / 'report.html'}"
    output.result(value, output.stack(rendering.terminal(outcome.report), terminal(outcome.verdict), where), as_json)
    return EXIT_CODES[outcome.verdict.outcome]


COMMANDS = {"run": run}
