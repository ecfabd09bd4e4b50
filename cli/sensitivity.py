"""`compress sensitivity`: what each part of a network can give up."""

from pathlib import Path
from typing import Literal

import click
import rich_click

from compress.errors import UsageError

from . import options, output
from .resources import gather


@rich_click.command("sensitivity")
@click.argument("checkpoint", type=options.FILE)
@click.option(
    "--structure",
    type=click.Choice(["channels", "weights"]),
    default="channels",
    show_default=True,
    help="What each part gives up: a group its channels, or a layer its weights.",
)
@click.option("--criterion", help="What goes first. [default: l2 for channels, magnitude for weights]")
@click.option(
    "--ratio",
    "ratios",
    type=float,
    multiple=True,
    help="Share to give up. May be given several times. [default: those in the file, or five]",
)
@click.option("--images", type=click.IntRange(1), default=1024, show_default=True, help="Validation images to ask.")
@click.option(
    "-o", "--output", "output_file", type=options.FILE, help="File to write. [default: beside the checkpoint]"
)
@options.data
@options.data_folder
@options.network
@options.seed
@options.device
@options.threads
@options.as_json
def sensitivity(
    checkpoint: Path,
    structure: Literal["channels", "weights"],
    criterion: str | None,
    ratios: tuple[float, ...],
    images: int,
    output_file: Path | None,
    data: str | None,
    data_folder: Path | None,
    network: str | None,
    seed: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure what a network loses when one group of channels, or one layer's weights, is pruned alone.

    Accuracy on the validation images; where the weights have seen those, how far the logits move. Started again, it
    goes on with the file it left. Beside that file goes a plot, FILE.svg.

    Example: compress sensitivity base.safetensors --data digits
    """
    from compress import checkpoint as files
    from compress import document, storage
    from compress.prune import sensitivity as library
    from compress.prune.sensitivity_plot import MEANING, plot
    from compress.sensitivity import beside

    path = output_file or beside(checkpoint, structure)
    options.refuse_overwriting(path, checkpoint)
    if path.suffix == ".svg":
        raise UsageError(f"{path} is where the plot goes, beside what was measured. Give -o {path.stem}.json.")
    with output.progress(as_json) as progress:
        source = files.load(checkpoint)
        resources = gather(
            source, data, data_folder, None, None, network, seed, device, threads, progress, path, checkpoint
        )
        found = library.measure(
            source,
            resources,
            structure,
            criterion or library.CRITERION[structure],
            ratios=ratios,
            images=images,
            path=path,
        )
    drawing = path.with_suffix(".svg")
    storage.write_text(drawing, plot(found))
    columns = [structure, *(f"{ratio:g}" for ratio in found.ratios)]
    rows = [[part, *(f"{cost:.2f}" for cost in found.harm(part))] for part in found.parts]
    lines = [f"left alone: {refusal.layer} ({refusal.reason})" for refusal in found.refusals]
    lines.append(f"wrote {path} and {drawing.name}")
    title = f"{MEANING[found.measure]} when a share goes; {found.images} validation images"
    value = {"output": str(path), "plot": str(drawing), **document.plain(found)}
    output.result(value, output.stack(output.table(title, columns, rows), *lines), as_json)


COMMANDS = {"sensitivity": sensitivity}
