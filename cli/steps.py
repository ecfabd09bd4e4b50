"""The commands that are one step each: train, prune, fold, quantize. Their options are the step's own fields."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import rich_click

from compress import checkpoint as files
from compress.pipeline import Step
from compress.recipe import step_class

from . import options, output
from .resources import gather

EXAMPLES = {
    "train": "compress train pruned.safetensors --data digits --epochs 5 --distillation 0.9 --teacher base.safetensors -o recovered.safetensors",
    "prune": "compress prune base.safetensors --data digits --macs 0.5 -o pruned.safetensors",
    "fold": "compress fold recovered.safetensors -o folded.safetensors",
    "quantize": "compress quantize folded.safetensors --data digits --target onnxruntime-cpu -o int8.safetensors",
}

TEACHER = click.option("--teacher", type=options.FILE, help="Checkpoint whose answers the distillation follows.")


def _command(name: str) -> click.Command:
    step = step_class(name)

    def command(
        checkpoint: Path,
        output_file: Path,
        data: str | None,
        data_folder: Path | None,
        calibration: Path | None,
        network: str | None,
        seed: int,
        device: str,
        threads: int | None,
        as_json: bool,
        teacher: Path | None = None,
        **values: Any,
    ) -> None:
        made = options.make_step(step, values)
        options.refuse_overwriting(output_file, checkpoint)
        with output.progress(as_json) as progress:
            source = files.load(checkpoint)
            resources = gather(
                source, data, data_folder, calibration, teacher, network, seed, device, threads, progress, output_file
            )
            result = made(source, resources)
        files.save(result, output_file)
        output.result(_plain(result, output_file), _human(made, result, output_file), as_json)

    command.__doc__ = f"{step.__doc__}\n\n    Example: {EXAMPLES[name]}"
    decorators: list[Callable[[Any], Any]] = [
        rich_click.command(name),
        click.argument("checkpoint", type=options.FILE),
        options.out,
        options.data,
        options.data_folder,
        options.calibration,
        *([TEACHER] if name == "train" else []),
        options.network,
        options.step_options(step),
        options.seed,
        options.device,
        options.threads,
        options.as_json,
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command  # type: ignore[return-value]  # click.command made it one


def _plain(result: files.Checkpoint, path: Path) -> dict[str, Any]:
    from compress import document

    return {
        "output": str(path),
        "fingerprint": result.fingerprint,
        "architecture": result.architecture.title,
        "record": document.plain(result.history[-1]),
    }


def _human(step: Step, result: files.Checkpoint, path: Path) -> str:
    record = result.history[-1]
    lines = [f"{step.name}: wrote {path} ({result.architecture.title}, {result.architecture.precision})"]
    lines += [f"  {note}" for note in record.notes]
    lines += [f"  left alone: {refusal.layer} ({refusal.reason})" for refusal in record.refusals]
    return "\n".join(lines)


COMMANDS = {name: _command(name) for name in ("train", "prune", "fold", "quantize")}
