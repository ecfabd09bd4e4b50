"""A report and limits, from the words of a command line or a workflow to a verdict and its files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pydantic

from compress import gate, gate_rendering, limit, storage
from compress.environment import environment
from compress.errors import UsageError
from compress.gate_rendering import Verdict
from compress.limit import Limit
from compress.report import report as reports
from compress.starting_limits import starting_limits


def judge(
    path: Path,
    limits: Path | None = None,
    preset: str | None = None,
    demands: Mapping[str, str | None] | None = None,
    inconclusive: Literal["inconclusive", "fail", "warn"] = "inconclusive",
    junit: Path | None = None,
) -> Verdict:
    """Hold a report against a limits file, a preset and single demands, all together.

    The verdict is added to a workflow's job summary where `GITHUB_STEP_SUMMARY` names one, and written as
    JUnit XML to `junit`. Raises UsageError where no limit was given at all.
    """
    report = reports.read(path)
    asked = (
        *(limit.read(limits) if limits else ()),
        *(limit.preset(preset) if preset else ()),
        *_demanded(demands or {}),
    )
    if not asked:
        raise UsageError(
            "a gate without limits passes everything: give --limits FILE, --preset NAME, or a limit such as --max-size 500KB."
        )
    found = gate.references(asked, limits.parent if limits else Path())
    results = gate.check(report, asked, found, environment(1))
    verdict = Verdict(gate.outcome(results, inconclusive), results)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(gate_rendering.markdown(verdict) + "\n")
    if junit:
        storage.write_text(junit, gate_rendering.junit(verdict))
    return verdict


def start(path: Path) -> str:
    """A limits file that a report passes, with a margin on each figure."""
    return starting_limits(reports.read(path))


def _demanded(demands: Mapping[str, str | None]) -> list[Limit]:
    made = []
    for name, text in demands.items():
        if text is None:
            continue
        metric, bound, _ = limit.DEMANDS[name]
        try:
            made.append(
                Limit.model_validate(
                    {"metric": metric, bound: text, **({"percentile": 99} if name == "max_p99" else {})}
                )
            )
        except pydantic.ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise UsageError(f"--{name.replace('_', '-')}: {message}") from error
    return made
