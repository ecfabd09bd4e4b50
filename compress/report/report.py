"""A report: the recordings of a baseline and its candidates, as one value and one JSON document.

The document holds what was recorded and nothing computed from it; every rendering computes its figures
again. It carries the digest of its own content, so that a number changed by hand is noticed.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pydantic.dataclasses

from compress import document, storage
from compress.architecture import STRICT
from compress.errors import CompressError, UsageError, unknown
from compress.measurement import FORMAT as RECORDING_FORMAT
from compress.measurement import KIND as RECORDING_KIND
from compress.measurement import Entry, Recording, Subject
from compress.report.candidate import Candidate, Recorded, called, join

KIND, FORMAT = "compress report", 1
RECORDING, RECIPE = "measurements.json", "recipe.yaml"


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Source:
    """One recording a report is made from: its name for people, the digest of its file, and what it holds."""

    name: str
    digest: str
    entries: tuple[Entry, ...]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Report:
    """A baseline (the digest of its file) beside candidates, and the recipe that made them where there is one."""

    title: str
    baseline: str
    sources: tuple[Source, ...]
    recipe: str | None = None

    def __post_init__(self) -> None:
        if all(entry.subject.digest != self.baseline for source in self.sources for entry in source.entries):
            raise ValueError(f"nothing was recorded about its baseline {self.baseline}")
        len(self.candidates)  # recordings that contradict each other are refused here, not when a page is made

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """What was measured, one value a subject, the baseline first, the others in the order recorded.

        Raises CompressError where two recordings contradict each other.
        """
        recorded = [(source.digest, entry) for source in self.sources for entry in source.entries]
        groups: dict[str, list[Recorded]] = {self.baseline: []}
        again: list[Recorded] = []
        for each in recorded:
            mine = groups.setdefault(each[1].subject.digest, [])
            (again if _against_itself(each[1]) else mine).append(each)
        if again:  # the baseline timed once more, as its own candidate: it shares all but the times
            groups[f"{self.baseline} again"] = again + [each for each in groups[self.baseline] if not _timed(each[1])]
        return tuple(join(group) for group in groups.values() if group)


def _timed(entry: Entry) -> bool:
    return any(measurement.metric in ("latency", "latency_ratio") for measurement in entry.measurements)


def _against_itself(entry: Entry) -> bool:
    return any(measurement.conditions.get("baseline") == entry.subject.digest for measurement in entry.measurements)


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class _Sealed:
    """The JSON document: a report and the digest of its content."""

    digest: str
    report: Report


def digest(report: Report) -> str:
    """The digest of a report's content, whatever the layout of its file."""
    return storage.digest_bytes(json.dumps(document.plain(report), sort_keys=True, allow_nan=False).encode())


def dumps(report: Report) -> str:
    """The JSON document of a report: the same bytes for the same report."""
    return document.dumps(KIND, FORMAT, _Sealed(digest(report), report))


def read(path: Path) -> Report:
    """Read a report; raises CompressError where it is none, is of a newer format, or was changed after it was written."""
    sealed = document.read(path, KIND, FORMAT, _Sealed)
    if sealed.digest != digest(sealed.report):
        raise CompressError(
            f"the report {path} was changed after it was written: its content has the digest {digest(sealed.report)}, and it "
            f"says {sealed.digest}. Its numbers cannot be trusted; make it again from the recordings with: compress report"
        )
    return sealed.report


def from_recordings(
    paths: Sequence[Path], title: str | None = None, baseline: str | None = None, recipe: str | None = None
) -> Report:
    """Make a report of recordings: files, or folders of runs in which every measurements.json counts.

    `baseline` is a subject's name, or the start of its digest. Left out, it is the one that the latency
    ratios were taken against, else the first subject recorded. A folder's recipe.yaml is taken along.
    """
    found = [(name, path) for given in paths for name, path in _recordings(given)]
    sources: dict[str, Source] = {}
    for name, path in found:
        content = storage.read_bytes(path, "recording")
        recording = document.loads(content, RECORDING_KIND, RECORDING_FORMAT, Recording, f"the recording {path}")
        source = Source(name, storage.digest_bytes(content), recording.entries)
        sources.setdefault(source.digest, source)
    subjects = {entry.subject.digest: entry.subject for source in sources.values() for entry in source.entries}
    if not subjects:
        raise UsageError(
            f"nothing was measured in {', '.join(map(str, paths)) or 'no recording'}: a report needs the {RECORDING} of a run."
        )
    against = _baseline(baseline, subjects, tuple(sources.values()))
    if recipe is None:
        recipes = [path / RECIPE for path in paths if (path / RECIPE).is_file()]
        recipe = storage.read_bytes(recipes[0], "recipe").decode(errors="replace") if recipes else None
    return Report(title or f"{subjects[against].network}, compressed", against, tuple(sources.values()), recipe)


def of(recording: Recording, name: str) -> Report:
    """The report of one recording in memory, called `name`; its first subject is the baseline."""
    content = document.dumps(RECORDING_KIND, RECORDING_FORMAT, recording)
    source = Source(name, storage.digest_bytes(content.encode()), recording.entries)
    return Report(name, recording.entries[0].subject.digest, (source,))


def _recordings(given: Path) -> list[tuple[str, Path]]:
    """The recordings at a path, each with a name that says nothing of the machine's folders."""
    if not given.is_dir():
        return [(f"{given.resolve().parent.name}/{given.name}", given)]
    found = sorted(given.rglob(RECORDING))
    if not found:
        raise UsageError(f"there is no {RECORDING} in {given}: give the folder of a run, or the file itself.")
    return [(f"{given.resolve().name}/{path.relative_to(given).as_posix()}", path) for path in found]


def _baseline(given: str | None, subjects: dict[str, Subject], sources: tuple[Source, ...]) -> str:
    if given is not None:
        named = [digest for digest, subject in subjects.items() if called(subject, given)]
        if not named:
            raise unknown("baseline", given, {subject.name for subject in subjects.values()})
        if len(named) > 1:
            raise UsageError(
                f"{len(named)} subjects are called {given!r}; name the baseline by its digest: {', '.join(named)}."
            )
        return named[0]
    measurements = (measurement for source in sources for entry in source.entries for measurement in entry.measurements)
    against = {str(each.conditions["baseline"]) for each in measurements if "baseline" in each.conditions}
    return against.pop() if len(against) == 1 and against <= subjects.keys() else next(iter(subjects))
