"""`compress evaluate`: accuracy on the test images."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import rich_click

from compress.errors import UsageError

from . import options, output

if TYPE_CHECKING:
    from compress.runtime.views import Views


@rich_click.command("evaluate")
@click.argument("file", type=options.FILE)
@options.data
@options.data_folder
@options.runtime
@click.option("--batch", type=click.IntRange(1), default=256, show_default=True, help="Images at a time.")
@click.option(
    "--tta",
    type=click.Choice(["none", "flip", "crops"]),
    default="none",
    show_default=True,
    help="Answer from several views of each image: also mirrored; or ten crops.",
)
@options.recording
@options.network
@options.device
@options.threads
@options.as_json
def evaluate(
    file: Path,
    data: str | None,
    data_folder: Path | None,
    runtime: str | None,
    batch: int,
    tta: "Views",
    output_file: Path | None,
    network: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure top-1 and top-5 accuracy of a checkpoint or an artifact on all test images.

    Example: compress evaluate int8.onnx --data digits
    """
    from compress import document, measurement
    from compress.measured import evaluate_file
    from compress.quantity import show

    if data is None:
        raise UsageError("accuracy on which images? Give --data NAME.")
    options.refuse_overwriting(output_file, file)
    with output.progress(as_json) as progress:
        recording = evaluate_file(
            file, data, data_folder, runtime=runtime, batch=batch, tta=tta, network=network, device=device, threads=threads, progress=progress
        )  # fmt: skip
    if output_file:
        measurement.write(output_file, recording)
    (entry,) = recording.entries
    found = [measured for measured in entry.measurements if "split" in measured.conditions]
    lines = [
        f"{measured.metric}: {show(measured.median, '%')} ({', '.join(f'{key} {value}' for key, value in measured.conditions.items())})"
        for measured in found
    ]
    output.result(document.plain(recording), "\n".join(lines), as_json)


COMMANDS = {"evaluate": evaluate}
