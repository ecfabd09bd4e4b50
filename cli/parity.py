"""`compress parity`: whether two files compute the same."""

from pathlib import Path

import click
import rich_click

from . import options, output


@rich_click.command("parity")
@click.argument("files", nargs=2, type=options.FILE, metavar="BEFORE AFTER")
@options.data
@options.data_folder
@click.option(
    "--kind",
    type=click.Choice(["exact", "integer", "changed"]),
    help="What the hop claims. [default: from the two files]",
)
@click.option(
    "--images", type=click.IntRange(2), default=128, show_default=True, help="Validation images to ask both about."
)
@options.recording
@options.network
@options.as_json
def parity(
    files: tuple[Path, Path],
    data: str | None,
    data_folder: Path | None,
    kind: str | None,
    images: int,
    output_file: Path | None,
    network: str | None,
    as_json: bool,
) -> int:
    """Compare the answers of two files, BEFORE and AFTER; exit code 1 where they differ by more than rounding.

    Example: compress parity folded.safetensors folded.onnx --data digits
    """
    from compress import document, measurement
    from compress.errors import CheckFailed
    from compress.measured import compare_files

    options.refuse_overwriting(output_file, *files)
    recording = compare_files(*files, data, data_folder, kind=kind, images=images, network=network)  # type: ignore[arg-type]  # one of click's choices
    if output_file:
        measurement.write(output_file, recording)
    (hop,) = recording.entries[0].parity
    rows = [
        (name, f"{value:.3g}", f"{hop.tolerance[name]:.3g}" if name in hop.tolerance else "")
        for name, value in hop.figures.items()
    ]
    drawn = output.table(f"{hop.name}: {hop.verdict} {hop.reason}", ("figure", "value", "limit"), rows)
    output.result(document.plain(recording), drawn, as_json)
    return 0 if hop.verdict == "passed" else CheckFailed.exit_code


COMMANDS = {"parity": parity}
