"""`compress export`: from a checkpoint to a file that a runtime loads."""

from pathlib import Path

import click
import rich_click

from compress.export import EXPORTERS

from . import options, output


@rich_click.command("export")
@click.argument("checkpoint", type=options.FILE)
@click.option(
    "--format", "kind", type=click.Choice(list(EXPORTERS)), default="onnx", show_default=True, help="The kind of file."
)
@options.out
@options.network
@options.as_json
def export(checkpoint: Path, kind: str, output_file: Path, network: str | None, as_json: bool) -> None:
    """Write a deployable file of a checkpoint, and beside it FILE.json, which says where it came from.

    What is held in INT8 and for which target comes from the checkpoint.

    Example: compress export int8.safetensors -o int8.onnx
    """
    from compress import checkpoint as files
    from compress import document, networks
    from compress.export import export as write

    options.refuse_overwriting(output_file, checkpoint)
    artifact = write(files.load(checkpoint), output_file, kind, networks.load_user(network) if network else None)
    human = f"export: wrote {output_file} ({artifact.network}, {artifact.precision}, {artifact.size_bytes:,} bytes)"
    output.result({"output": str(output_file), **document.plain(artifact)}, human, as_json)


COMMANDS = {"export": export}
