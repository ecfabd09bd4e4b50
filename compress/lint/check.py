"""An ONNX file looked through for what it costs in a target, and repaired where it was asked for."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from compress import storage
from compress.export import onnx_file
from compress.lint.finding import Finding
from compress.lint.fix import Repair, repair
from compress.lint.rules import lint
from compress.quantize.target import target


@dataclass(frozen=True)
class Checked:
    """The findings in a file, or those left in what was written after the repairs."""

    findings: tuple[Finding, ...]
    repairs: tuple[Repair, ...] = ()
    output: Path | None = None


def check(path: Path, name: str, ignore: Collection[str] = (), output: Path | None = None) -> Checked:
    """Look through the ONNX file at `path` for the target called `name`; with `output`, write a repaired one there.

    Raises UsageError for a target or a rule there is not, CompressError for a file that is not sound ONNX.
    """
    content, wanted = onnx_file.read(path), target(name)
    findings = lint(content, wanted, ignore)
    if output is None:
        return Checked(findings)
    done = repair(content, wanted, ignore=ignore)
    storage.write_bytes(output, done.content)
    return Checked(done.left, done.repairs, output)
