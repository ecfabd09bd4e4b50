"""`compress benchmark`: time, memory and size of files against a baseline."""

import statistics
from pathlib import Path

import click
import rich_click
from click.core import ParameterSource

from compress.device import hold

from . import options, output

MEASURING = {"seconds": "--seconds", "precision": "--precision", "seed": "--seed", "output_file": "-o"}
TESTING = {"runs": "--runs"}
"""Options that a benchmark alone reads, and one that a self-test does."""


@rich_click.command("benchmark")
@click.argument("files", nargs=-1, type=options.FILE, metavar="BASELINE [CANDIDATE]...")
@options.runtime
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 64),
    show_default=True,
    help="Batch size. May be given several times.",
)
@click.option(
    "--seconds",
    type=float,
    default=20.0,
    show_default=True,
    help="Longest time for one batch size, all files together.",
)
@click.option(
    "--precision",
    type=float,
    default=0.02,
    show_default=True,
    help="Stop when every ratio is known this well; 0.02 is within 2 %.",
)
@click.option(
    "--self-test",
    "testing",
    is_flag=True,
    help="Count how often the benchmark is wrong here: the first file (or a matrix product) against itself, and made 10 % slower.",
)
@click.option(
    "--runs", type=click.IntRange(1), default=20, show_default=True, help="Benchmarks of each kind in a self-test."
)
@click.option(
    "--core",
    "cores",
    type=click.IntRange(0),
    multiple=True,
    help="Core of the machine to hold everything to, numbered from 0. May be given several times. [default: all]",
)
@options.recording
@options.network
@options.device
@options.threads
@options.seed
@options.as_json
def benchmark(
    files: tuple[Path, ...],
    runtime: str | None,
    batches: tuple[int, ...],
    seconds: float,
    precision: float,
    testing: bool,
    runs: int,
    cores: tuple[int, ...],
    output_file: Path | None,
    network: str | None,
    device: str,
    threads: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure latency, throughput, memory and size of files, all taking turns in one run; the first is the baseline.

    Example: compress benchmark baseline.onnx int8.onnx -o measurements.json
    """
    typed = _typed()
    for name, option in (MEASURING if testing else TESTING).items():
        if name in typed:
            raise click.UsageError(
                f"{option} means nothing {'with' if testing else 'without'} --self-test. Leave it out."
            )
    if cores:
        hold(cores)
    if testing:
        if len(files) > 1 or ("batches" in typed and len(batches) > 1):
            raise click.UsageError("--self-test is of one file, or of none, at one batch size.")
        if not files and typed & {"runtime", "network", "batches"}:
            raise click.UsageError("--self-test without a file times a matrix product. Name the file to open.")
        _self_test(files[0] if files else None, runtime, runs, batches[0], threads or 1, device, network, as_json)
        return
    if not files:
        raise click.UsageError("give the files to measure, the baseline first.")
    from compress import benchmark as library
    from compress import document, measurement
    from compress.interleave import Effort
    from compress.measured import runtime_of
    from compress.report import rendering
    from compress.report.report import of

    options.refuse_overwriting(output_file, *files)
    with output.progress(as_json) as progress:
        recording = library.benchmark(
            files[0], files[1:], runtime or runtime_of(files[0]), batches=batches, threads=threads or 1, device=device,
            network=network, effort=Effort(precision, seconds), seed=seed, progress=progress,
        )  # fmt: skip
    if output_file:
        measurement.write(output_file, recording)
    output.result(document.plain(recording), rendering.terminal(of(recording, "benchmark")), as_json)


def _typed() -> set[str]:
    """The parameters that were given on the command line."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def _self_test(
    path: Path | None,
    runtime: str | None,
    runs: int,
    batch: int,
    threads: int,
    device: str,
    network: str | None,
    as_json: bool,
) -> None:
    from compress import document, networks
    from compress import self_test as library
    from compress.measured import runtime_of

    with output.progress(as_json) as progress:
        found = library.self_test(
            path,
            runtime or (runtime_of(path) if path else ""),
            runs=runs,
            batch=batch,
            threads=threads,
            device=device,
            user=networks.load_user(network) if network else None,
            progress=progress,
        )
    columns = ("what", "slower by", "benchmarks", "false alarms", "detected", "interval, median")
    rows = [
        (
            each.what,
            f"{each.injected:.0%}",
            str(each.runs),
            "" if each.injected else str(each.wrong),
            str(each.shown) if each.injected else "",
            f"+- {statistics.median(each.half_widths):.2%}",
        )
        for each in found
    ]
    drawn = output.table("What this benchmark says of a file against itself, and made slower", columns, rows)
    output.result({"trials": [document.plain(each) for each in found]}, drawn, as_json)


COMMANDS = {"benchmark": benchmark}
