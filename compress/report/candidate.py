"""Everything recorded about one subject, joined over recordings: what the report's rows are made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from compress.errors import CompressError
from compress.measurement import (
    METRICS,
    Curve,
    Entry,
    Environment,
    Hop,
    Layer,
    Measurement,
    Profile,
    Subject,
    comparable,
)
from compress.sensitivity import Sensitivity

T = TypeVar("T")
Recorded = tuple[str, Entry]
"""An entry, and the digest of the recording it is from."""


@dataclass(frozen=True)
class Sample:
    """One measurement of a candidate, the machine it was taken on, and the digests of the recordings it is from.

    `correct` is the answer to each test image, where the measurement is an accuracy that came with them.
    """

    measurement: Measurement
    environment: Environment
    sources: tuple[str, ...]
    correct: str | None = None


@dataclass(frozen=True)
class Candidate:
    """Everything recorded about one subject, joined over recordings; the baseline is one too."""

    subject: Subject
    samples: tuple[Sample, ...] = ()
    parity: tuple[Hop, ...] = ()
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()
    curves: tuple[Curve, ...] = ()
    environments: tuple[Environment, ...] = ()
    profile: Profile | None = None
    sensitivity: Sensitivity | None = None

    def find(self, metric: str, **conditions: str | int | None) -> tuple[Sample, ...]:
        """The samples of a metric whose conditions are the given ones; a condition given as None is any."""
        wanted = {name: value for name, value in conditions.items() if value is not None}
        return tuple(
            sample
            for sample in self.samples
            if sample.measurement.metric == metric
            and all(sample.measurement.conditions.get(name) == value for name, value in wanted.items())
        )

    def counterpart(self, sample: Sample) -> Sample | None:
        """What to set a sample of another candidate against: the same metric under the same conditions.

        Exact metrics do not depend on runtime, batch or threads; for those the same images are enough.
        """
        same = self.find(sample.measurement.metric)
        wanted = sample.measurement.conditions
        equal = [each for each in same if each.measurement.conditions == wanted]
        if METRICS[sample.measurement.metric].exact:
            equal += [
                each
                for each in same
                if all(each.measurement.conditions.get(key) == wanted.get(key) for key in ("split", "images"))
            ]
        return equal[0] if equal else None


def called(subject: Subject, name: str) -> bool:
    """Whether a name means this subject: its own, or the start of its digest."""
    return name == subject.name or subject.digest.startswith((name, f"sha256:{name}"))


def join(recorded: Sequence[Recorded]) -> Candidate:
    """Join the entries of one subject.

    Samples of one metric under one set of conditions are put together when machine and versions are the
    same. Raises CompressError where they are not, and where two recordings differ about an exact figure.
    """
    samples: dict[tuple[object, ...], Sample] = {}
    for source, entry in recorded:
        for measurement in entry.measurements:
            key = (measurement.metric, *sorted(measurement.conditions.items()))
            sample = Sample(measurement, entry.environment, (source,), _correct(entry, measurement))
            samples[key] = _pool(samples[key], sample, entry.subject) if key in samples else sample
    entries = [entry for _, entry in recorded]
    layers = next((entry.layers for entry in entries if entry.layers), ())
    profile = next((entry.profile for entry in entries if entry.profile), None)
    sensitivity = next((each for entry in entries for each in entry.sensitivities), None)
    return Candidate(
        entries[0].subject,
        tuple(samples.values()),
        unique(hop for entry in entries for hop in entry.parity),
        tuple(_filled(layer, profile, sensitivity) for layer in layers),
        unique(note for entry in entries for note in entry.notes),
        unique(curve for entry in entries for curve in entry.curves),
        unique(entry.environment for entry in entries),
        profile,
        sensitivity,
    )


def _filled(layer: Layer, profile: Profile | None, sensitivity: Sensitivity | None) -> Layer:
    """A layer with the time that is spent in it and what half of it is worth, as far as these were measured."""
    seconds = profile.layer(layer.name) if profile else None
    return replace(layer, seconds=seconds, sensitivity=sensitivity.layer(layer.name) if sensitivity else None)


def _pool(one: Sample, other: Sample, subject: Subject) -> Sample:
    sources = unique([*one.sources, *other.sources])
    values = other.measurement.values
    if values == one.measurement.values:
        return replace(one, sources=sources, correct=one.correct or other.correct)
    metric = one.measurement.metric
    versions = ("versions",) if one.environment.versions != other.environment.versions else ()
    differing = comparable(one.environment, other.environment) + versions
    if METRICS[metric].exact or differing:
        why = f"were taken under different {', '.join(differing)}" if differing else "of the same file cannot differ"
        raise CompressError(
            f"two recordings of {subject.name} ({subject.digest}) disagree about its {metric}, and {why}. "
            "Give the recordings of one run, or make a report of each."
        )
    return replace(
        one, measurement=replace(one.measurement, values=(*one.measurement.values, *values)), sources=sources
    )


def _correct(entry: Entry, measurement: Measurement) -> str | None:
    """The answers behind an accuracy: those of its entry, where their share is the accuracy recorded."""
    if measurement.metric != "top1" or not entry.correct:
        return None
    share = 100 * entry.correct.count("1") / len(entry.correct)
    return entry.correct if abs(share - measurement.median) < 50 / len(entry.correct) else None


def unique(items: Iterable[T]) -> tuple[T, ...]:
    """The items in order, each once; they need not be hashable."""
    kept: list[T] = []
    for item in items:
        if item not in kept:
            kept.append(item)
    return tuple(kept)
