"""A report and limits, from the words of a command line or a workflow to a verdict and its files."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from compress import demand, gate, gate_rendering, limit, storage
from compress.environment import environment
from compress.errors import UsageError
from compress.gate_rendering import Verdict
from compress.limit import Limit
from compress.report import report as reports
from compress.starting_limits import starting_limits

SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable in which GitHub names the file of a job's summary."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """The limits asked for: a file of them, a preset, and options such as `max_size` with what they are narrowed to.

    `scope` holds the fields `candidate`, `runtime`, `batch`, `against` and `level` of a limit; what is None is
    left as it is. `against` is a path from where the command runs.
    """

    file: Path | None = None
    preset: str | None = None
    options: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    scope: Mapping[str, str | int | None] = dataclasses.field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The folder that the paths in limits start from."""
        return self.file.parent if self.file else Path()

    def limits(self) -> tuple[Limit, ...]:
        """All of them; raises UsageError where there are none."""
        against = self.scope.get("against")
        own = os.path.relpath(str(against), self.home) if against else None
        made = demand.demanded(
            {name: text for name, text in self.options.items() if text is not None}, {**self.scope, "against": own}
        )
        found = (
            *(limit.read(self.file) if self.file else ()),
            *(limit.preset(self.preset) if self.preset else ()),
            *made,
        )
        if not found:
            raise UsageError(
                "a gate without limits passes everything: give --limits FILE, --preset NAME, or a limit such as --max-size 500KB."
            )
        return found


def judge(
    path: Path,
    asked: Asked,
    inconclusive: Literal["inconclusive", "fail", "warn"] = "inconclusive",
    any_machine: bool = False,
    junit: Path | None = None,
) -> Verdict:
    """Hold a report against the limits asked for.

    The verdict is added to a workflow's job summary where `GITHUB_STEP_SUMMARY` names one, and written as
    JUnit XML to `junit`. Raises UsageError where no limit was given at all.
    """
    report, limits = reports.read(path), asked.limits()
    results = gate.check(report, limits, gate.references(limits, asked.home), environment(1), any_machine)
    verdict = Verdict(gate.outcome(results, inconclusive), results)
    if summary := os.environ.get(SUMMARY):
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(gate_rendering.markdown(verdict) + "\n")
    if junit:
        storage.write_text(junit, gate_rendering.junit(verdict))
    return verdict


def start(path: Path) -> str:
    """A limits file that a report passes, with a margin on each figure."""
    return starting_limits(reports.read(path))
