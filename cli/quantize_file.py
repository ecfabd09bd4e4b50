"""`compress quantize FILE.onnx`: for whoever has no checkpoint, only an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from compress.errors import UsageError

from . import options, output

if TYPE_CHECKING:
    from compress.quantize.onnx_static import QuantizedFile

TAKEN = ("checkpoint", "output_file", "data", "data_folder", "calibration", "threads", "as_json")
"""Options of the command that mean something for a file, besides the settings in `SETTINGS`."""
SETTINGS = ("target", "images", "batch", "exclude")


def quantize_file(
    path: Path,
    output_file: Path,
    data: str | None,
    data_folder: Path | None,
    calibration: Path | None,
    threads: int | None,
    as_json: bool,
    values: dict[str, Any],
) -> None:
    """Quantize an ONNX file and print what came of it; raises UsageError for options that are for checkpoints."""
    from compress import document
    from compress.measured import data_of
    from compress.pipeline import Resources
    from compress.quantize.onnx_static import quantize
    from compress.quantize.step import Quantize

    _refuse_others()
    settings = options.make_step(Quantize, {name: values[name] for name in SETTINGS})
    options.refuse_overwriting(output_file, path)
    found = data_of(path, data, data_folder, calibration).learning if data else None
    with output.progress(as_json) as progress:
        done = quantize(path, output_file, Resources(found).need_data(settings.name), settings, threads or 1, progress)
    output.result({"output": str(output_file), **document.plain(done)}, _human(done), as_json)


def _refuse_others() -> None:
    context = click.get_current_context()
    for name in context.params.keys() - {*TAKEN, *SETTINGS}:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"--{name.replace('_', '-')} is about quantizing a checkpoint, and this is an ONNX file, which onnxruntime's quantizer "
                "takes as it is. Leave it out, or give the checkpoint the file was exported from."
            )


def _human(done: "QuantizedFile") -> str:
    artifact = done.artifact
    lines = [
        f"quantize: wrote {artifact.path} ({artifact.network}, int8 for {artifact.target}, {artifact.size_bytes:,} bytes)"
    ]
    lines += [f"  {note}" for note in done.notes]
    return "\n".join([*lines, *(f"  left alone: {each.layer} ({each.reason})" for each in artifact.kept)])
