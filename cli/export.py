"""`compress export`: from a checkpoint to a file that a runtime loads."""

from pathlib import Path
from typing import Any, get_args

import click
import rich_click

from compress.errors import UsageError
from compress.export import EXPORTERS
from compress.export.settings import Precision, Settings

from . import options, output


@rich_click.command("export")
@click.argument("checkpoint", type=options.FILE)
@click.option(
    "--format", "kind", type=click.Choice(list(EXPORTERS)), default="onnx", show_default=True, help="The kind of file."
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    help="What it computes in; fp16 needs --data. [default: what the checkpoint is held in]",
)
@click.option("--batch", type=click.IntRange(1), help="The only number of images it takes at a time. [default: any]")
@click.option(
    "--batches", type=int, nargs=3, help="Fewest, usual and most images at a time. [engines; default: 1 8 64]"
)
@click.option("--compute-capability", metavar="X.Y", help="The GPU to build for. [engines; default: the one here]")
@click.option("--workspace", type=click.IntRange(1), help="MiB that one layer may use. [engines; default: 1024]")
@options.data
@options.data_folder
@options.calibration
@options.out
@options.network
@options.as_json
def export(
    checkpoint: Path,
    kind: str,
    precision: Precision | None,
    batch: int | None,
    batches: tuple[int, int, int] | None,
    compute_capability: str | None,
    workspace: int | None,
    data: str | None,
    data_folder: Path | None,
    calibration: Path | None,
    output_file: Path,
    network: str | None,
    as_json: bool,
) -> None:
    """Write a deployable file of a checkpoint, and beside it FILE.json, which says where it came from.

    What is held in INT8 and for which target comes from the checkpoint.

    Examples:

        compress export int8.safetensors -o int8.onnx

        compress export base.safetensors --format tensorrt --precision fp16 --data digits --compute-capability 8.6 -o fp16.engine
    """
    from compress import checkpoint as files
    from compress import document, networks
    from compress.export import export as write
    from compress.export.half import images_for

    options.refuse_overwriting(output_file, checkpoint)
    engine = {"--batches": batches, "--compute-capability": compute_capability, "--workspace": workspace}
    if kind != "tensorrt" and (named := next((name for name, value in engine.items() if value is not None), None)):
        raise UsageError(f"{named} is about building an engine. Give --format tensorrt, or leave it out.")
    source = files.load(checkpoint)
    given: dict[str, Any] = {
        "precision": precision,
        "batch": batch,
        "batches": batches,
        "compute_capability": compute_capability,
        "workspace": workspace and workspace * 2**20,
    }
    artifact = write(
        source,
        output_file,
        kind,
        networks.load_user(network) if network else None,
        Settings(**{name: value for name, value in given.items() if value is not None}),
        images_for(source, data, data_folder, calibration) if data and precision == "fp16" else None,
    )
    human = f"export: wrote {output_file} ({artifact.network}, {artifact.precision}, {artifact.size_bytes:,} bytes)"
    human = "\n".join([human, *(f"  left in FP32: {each.layer} ({each.reason})" for each in artifact.kept)])
    output.result({"output": str(output_file), **document.plain(artifact)}, human, as_json)


COMMANDS = {"export": export}
