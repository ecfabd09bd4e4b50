"""`compress lint`: what in an ONNX file costs speed or exactness in a runtime, and the repair of what can be repaired."""

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
import rich_click

from compress.errors import UsageError
from compress.quantize.target import RUN

from . import options, output

if TYPE_CHECKING:
    from compress.lint.check import Checked


@rich_click.command("lint")
@click.argument("file", type=options.FILE)
@click.option("--target", type=click.Choice(RUN), required=True, help="The runtime the file is meant for.")
@click.option("--ignore", multiple=True, metavar="RULE", help="A rule to leave out. May be given several times.")
@click.option(
    "--fix", is_flag=True, help="Write a repaired file to -o, where a repair provably keeps what is computed."
)
@click.option("-o", "--output", "output_file", type=options.FILE, help="File to write with --fix; never the input.")
@options.as_json
def lint(file: Path, target: str, ignore: tuple[str, ...], fix: bool, output_file: Path | None, as_json: bool) -> int:
    """Find what in an ONNX file, of any tool, costs speed or exactness in a runtime. Exit 1 where something is left.

    Examples:

        compress lint int8.onnx --target onnxruntime-cpu

        compress lint int8.onnx --target tensorrt --fix -o better.onnx
    """
    from compress import document
    from compress.lint.check import check

    if fix != (output_file is not None):
        raise UsageError("--fix and -o go together: -o FILE is where the repaired graph is written.")
    if output_file is not None:
        options.refuse_overwriting(output_file, file)
    checked = check(file, target, ignore, output_file)
    output.result(document.plain(checked), _human(checked), as_json)
    return 1 if checked.findings else 0


def _human(checked: "Checked") -> str:
    lines = []
    for repair in checked.repairs:
        noise = f"noise {repair.before:.4f} before, {repair.after:.4f} after"
        lines.append(
            f"{'repaired' if repair.kept else 'not repaired'}: {repair.rule} at {repair.nodes} nodes ({noise})"
        )
    for (rule, cost), group in groupby(checked.findings, key=lambda finding: (finding.rule, finding.cost)):
        found = list(group)
        others = f" and {len(found) - 3} others" if len(found) > 3 else ""
        lines.append(f"{rule} ({cost}): {', '.join(finding.node for finding in found[:3])}{others}")
        lines += [f"    {found[0].why}", f"    {found[0].repair}"]
    lines += [f"wrote {checked.output}"] * (checked.output is not None)
    return "\n".join([*lines, f"{len(checked.findings)} findings" if checked.findings else "nothing found"])


COMMANDS = {"lint": lint}
"""Each command of this file, by its name."""
