"""The commands that are one step each: train, prune, sparsify, fold, quantize. Their options are the step's own fields."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import rich_click
from click.core import ParameterSource

from compress import checkpoint as files
from compress.errors import UsageError
from compress.measured import runtime_of
from compress.pipeline import Resources, Step, keep
from compress.recipe import step_class

from . import options, output
from .quantize_file import quantize_file
from .resources import gather

EXAMPLES = {
    "train": "compress train pruned.safetensors --data digits --epochs 5 --distillation 0.9 --teacher base.safetensors -o recovered.safetensors",
    "prune": "compress prune base.safetensors --data digits --macs 0.5 -o pruned.safetensors",
    "sparsify": "compress sparsify base.safetensors --data digits --sparsity 0.8 --schedule cubic --epochs 5 --training rate=0.02 -o sparse.safetensors",
    "fold": "compress fold recovered.safetensors -o folded.safetensors",
    "quantize": "compress quantize folded.safetensors --data digits --target onnxruntime-cpu -o int8.safetensors",
}

MORE = {
    "quantize": "An ONNX file of any tool is quantized by onnxruntime's quantizer to an ONNX file for the same targets (--target, --images, --batch, --exclude).\n\n    "
}
"""What a command does besides its step."""

TEACHER = click.option("--teacher", type=options.FILE, help="Checkpoint whose answers the distillation follows.")
FIND_RATE = click.option(
    "--find-rate",
    is_flag=True,
    help="Train nothing: write the loss at climbing learning rates to -o, an SVG, and say which rate to take.",
)


QAT = click.option(
    "--qat",
    is_flag=True,
    help="Train on the integers before: prepare, train after the checkpoint given, convert. It must not be folded.",
)


class _Prune(rich_click.RichCommand):
    """Says where to find what others call pruning, and what is a command of its own here."""

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        """Read the options; a UsageError names `sparsify` where one of them is of that."""
        if re.search(r"--sparsity\b|--structure[ =](weights|2:4)", " ".join(words)):
            from compress.prune.step import SPARSIFY

            message = f"{SPARSIFY}: compress sparsify --structure weights --sparsity 0.8, or --structure 2:4."
            raise click.UsageError(message, context)
        return super().parse_args(context, words)


def _command(name: str) -> click.Command:
    step = step_class(name)

    def command(
        checkpoint: Path,
        output_file: Path,
        network: str | None,
        seed: int,
        threads: int | None,
        as_json: bool,
        data: str | None = None,
        data_folder: Path | None = None,
        calibration: Path | None = None,
        device: str = "cpu",
        teacher: Path | None = None,
        find_rate: bool = False,
        qat: bool = False,
        **values: Any,
    ) -> None:
        from compress.device import is_first

        if name == "quantize" and runtime_of(checkpoint) == "onnxruntime":
            quantize_file(checkpoint, output_file, data, data_folder, calibration, threads, as_json, values)
            return
        made = _made(step, values, qat)
        if teacher is not None and not made.follows:
            raise UsageError(
                f"--teacher names {teacher}, and nothing would follow its answers. Give "
                f"{'--distillation 0.9' if name == 'train' else '--epochs and --training distillation=0.9'}, or leave it out."
            )
        options.refuse_overwriting(output_file, checkpoint)
        if not find_rate and runtime_of(output_file) != "torch":
            raise UsageError(
                f"{output_file} is named as an artifact, and {name} writes a checkpoint: give -o {output_file.stem}.safetensors, and "
                "make an artifact of that with compress export."
            )
        with output.progress(as_json) as progress:
            source = files.load(checkpoint)
            resources = gather(
                source,
                data,
                data_folder,
                calibration,
                teacher,
                network,
                seed,
                device,
                threads,
                progress,
                output_file,
                checkpoint,
            )
            plain, human = (_rate if find_rate else _result)(made, source, resources, output_file)
        if is_first():
            output.result(plain, human, as_json)

    command.__doc__ = f"{(step.__doc__ or '').rstrip()}\n\n    {MORE.get(name, '')}Example: {EXAMPLES[name]}"
    decorators: list[Callable[[Any], Any]] = [
        rich_click.command(name, cls=_Prune if name == "prune" else rich_click.RichCommand),
        click.argument("checkpoint", type=options.FILE),
        options.out,
        *([] if name == "fold" else [options.data, options.data_folder, options.calibration, options.device]),
        *([TEACHER] if name in ("train", "prune", "sparsify") else []),
        *([FIND_RATE] if name == "train" else []),
        *([QAT] if name == "quantize" else []),
        options.network,
        options.step_options(step),
        *([options.step_options(aware(), but=step)] if name == "quantize" else []),
        options.seed,
        options.threads,
        options.as_json,
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command  # type: ignore[return-value]  # click.command made it one


def aware() -> type[Step]:
    """The step behind `quantize --qat`."""
    from compress.quantize.qat_step import QAT

    return QAT


def _made(step: type[Step], values: dict[str, Any], qat: bool) -> Step:
    """The step of the options; raises UsageError for one that was typed and belongs to the other way of quantizing."""
    chosen = aware() if qat else step
    context = click.get_current_context()
    for name in values.keys() - chosen.model_fields.keys():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"--{name.replace('_', '-')} is about quantizing {'without' if qat else 'with'} training (--qat). "
                f"{'Leave it out' if qat else 'Give --qat, or leave it out'}."
            )
    return options.make_step(chosen, {name: value for name, value in values.items() if name in chosen.model_fields})


def _result(step: Step, source: files.Checkpoint, resources: Resources, path: Path) -> tuple[dict[str, Any], str]:
    from compress.device import is_first

    result = step(source, resources)
    if is_first():
        keep(result, path)
    return _plain(result, path), _human(step, source, result, path)


def _rate(train: Any, source: files.Checkpoint, resources: Resources, path: Path) -> tuple[dict[str, Any], str]:
    from compress.train.find_rate import find_rate, plot

    test = find_rate(train, source, resources)
    plot(test, path)
    plain = {"output": str(path), "rate": test.suggestion, "rates": test.rates, "losses": test.losses}
    return plain, f"take --rate {test.suggestion:.2g}; the curve is in {path}"


def _plain(result: files.Checkpoint, path: Path) -> dict[str, Any]:
    from compress import document

    return {
        "output": str(path),
        "fingerprint": result.fingerprint,
        "architecture": result.architecture.title,
        "record": document.plain(result.history[-1]),
    }


def _human(step: Step, source: files.Checkpoint, result: files.Checkpoint, path: Path) -> str:
    done = result.history[len(source.history) :]  # one record, or those of the steps that this step is
    lines = [f"{step.name}: wrote {path} ({result.architecture.title}, {result.architecture.precision})"]
    lines += [f"  {note}" for record in done for note in record.notes]
    lines += [f"  left alone: {refusal.layer} ({refusal.reason})" for record in done for refusal in record.refusals]
    return "\n".join(lines)


COMMANDS = {name: _command(name) for name in EXAMPLES}
