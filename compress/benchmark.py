"""Time, memory and size of a baseline and its candidates, taken side by side in one runtime."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from compress import interleave, nvml, process, subject
from compress.environment import environment
from compress.errors import CompressError, UsageError
from compress.interleave import Clock, Effort, Interleaved
from compress.interval import ratio_interval
from compress.measurement import Entry, Measurement, Profile, Recording
from compress.progress import Progress, silent
from compress.runtime import open_session, opener
from compress.runtime.session import CountsIntegers, Images, Session, TellsTimes, TimesDevice

Conditions = dict[str, str | int]
STANDARD = Effort()
DEVICE_RUNS = 20
"""How often the GPU is asked for its own time of a batch."""


def benchmark(
    baseline: Path,
    candidates: Sequence[Path],
    runtime: str,
    *,
    batches: Sequence[int] = (1, 64),
    threads: int = 1,
    device: str = "cpu",
    network: str | None = None,
    effort: Effort = STANDARD,
    images: Images | None = None,
    seed: int = 0,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = silent,
) -> Recording:
    """Measure files against each other: one entry each, the baseline's first.

    Each entry has `latency` (every run), `throughput` (one value a round) and, of a candidate, `latency_ratio` (one
    value a round) for each batch size; `peak_memory` and `first_inference` for each batch size and `load_time`, from processes of their
    own; `size`, `compressed_size`, `parameters` and `macs`; and of a quantized file `integer_macs`. On a GPU there are
    `device_latency`, and `allocated_memory` where torch runs the file, `device_memory` and `energy` where NVML can be read.
    Where the runtime tells where its time goes, the entry has its profile of the largest batch. `images` are real ones (N, C, H, W), normalised, repeated where a
    batch needs more; left out, they are normally distributed noise drawn from `seed`. `network` names the user's
    own function, as on the command line.

    What spoils a number is said in the entry's notes: a noisy machine, a warm-up without an end, a ratio less
    precise than asked for. Every file is first tried in processes of its own; a candidate that crashes one is not opened
    here: it has no times, and its notes say so.
    Raises CompressError where a file cannot be opened or does not take the baseline's images.
    """
    if not batches or min(batches) < 1:
        raise UsageError(
            f"batch sizes are 1 or more, at least one of them; got {', '.join(map(str, batches)) or 'none'}."
        )
    if images is not None and not len(images):
        raise UsageError("there are no images to show. Give some, or none at all to be timed on noise.")
    opener(runtime)  # a misspelt or missing one is said before any process is started
    user = None
    if network is not None:
        from compress.networks import load_user

        user = load_user(network)
    paths = (baseline, *candidates)
    here = environment(threads)
    entries = [_add(subject.entry(path, here, user), _packed(path)) for path in paths]
    common: Conditions = {"runtime": runtime, "device": device, "threads": threads}
    random = np.random.default_rng(seed)
    apart = []
    for number, path in enumerate(paths):
        progress("memory", number, len(paths), path.name)
        apart.append(_apart(process.Request(str(path), runtime, 1, threads, device, network), batches, common))
    progress("memory", len(paths), len(paths), "")
    if apart[0].crashed:
        raise CompressError(
            f"nothing can be timed against {baseline.name}: {apart[0].notes[0]}. Give another baseline."
        )
    alive = [number for number, each in enumerate(apart) if not each.crashed]
    on_gpu = device.startswith("cuda")
    meter = nvml.gpu(device)
    unread = (nvml.MISSING,) if on_gpu and meter is None else ()
    timed = [paths[number] for number in alive]
    with contextlib.ExitStack() as opened:
        sessions = []
        for path in timed:
            sessions.append(open_session(runtime, path, threads=threads, device=device, user=user))
            opened.callback(sessions[-1].close)
        for number, session in zip(alive, sessions, strict=True):
            entries[number] = _add(entries[number], _integers(session, runtime))
        for batch in batches:
            shown = _batch(sessions, timed, images, batch, random)
            runs = [partial(session, shown) for session in sessions]
            found = interleave.interleave(runs, effort, random, clock, progress, f"benchmark batch {batch}")
            for place, number in enumerate(alive):
                times = _times(found, place, entries[0].subject.digest, {**common, "batch": batch})
                entries[number] = _add(entries[number], times, _doubts(found, place, effort, batch))
                if on_gpu:
                    entries[number] = _add(entries[number], _device(sessions[place], shown, meter, common, clock))
        shown = _batch(sessions, timed, images, max(batches), random)
        for number, session in zip(alive, sessions, strict=True):
            if isinstance(session, TellsTimes):
                progress("profile", number, len(paths), paths[number].name)
                profile = Profile({**common, "batch": len(shown)}, session.node_seconds(shown))
                entries[number] = dataclasses.replace(entries[number], profile=profile)
    return Recording(
        tuple(_add(entry, each.measurements, each.notes + unread) for entry, each in zip(entries, apart, strict=True))
    )


@dataclasses.dataclass(frozen=True)
class _Apart:
    """What fresh processes found out about a file, a note for each that failed, and whether one was ended by a signal."""

    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]
    crashed: bool


def _batch(
    sessions: Sequence[Session], paths: Sequence[Path], images: Images | None, batch: int, random: np.random.Generator
) -> Images:
    """The images that every session is shown; raises CompressError where they do not all take the same."""
    shape = sessions[0].input_shape
    for session, path in zip(sessions, paths, strict=True):
        if session.input_shape != shape:
            raise CompressError(
                f"{path.name} takes images of shape {session.input_shape}, and {paths[0].name} of {shape}: they cannot be "
                "timed against each other. Give candidates made from the baseline."
            )
    if images is None:
        return random.standard_normal((batch, *shape), dtype=np.float32)
    return np.ascontiguousarray(images[np.arange(batch) % len(images)])


def _integers(session: Session, runtime: str) -> tuple[Measurement, ...]:
    share = session.integer_macs() if isinstance(session, CountsIntegers) else None
    return () if share is None else (Measurement("integer_macs", (share,), {"runtime": runtime}),)


def _packed(path: Path) -> tuple[Measurement, ...]:
    return (Measurement("compressed_size", (float(subject.compressed_size(path)),)),)


def _device(
    session: Session, images: Images, meter: nvml.Gpu | None, common: Conditions, clock: Clock
) -> tuple[Measurement, ...]:
    """What a GPU itself says of a batch: its own time, and the energy it used."""
    conditions: Conditions = {**common, "batch": len(images)}
    found = []
    if isinstance(session, TimesDevice):
        seconds = tuple(session.device_seconds(images) for _ in range(DEVICE_RUNS))
        found.append(Measurement("device_latency", seconds, conditions))
    joules = nvml.energy(meter, partial(session, images), len(images), clock) if meter else ()
    return (*found, Measurement("energy", joules, conditions)) if joules else tuple(found)


def _times(timed: Interleaved, number: int, baseline: str, conditions: Conditions) -> tuple[Measurement, ...]:
    rounds = timed.series[number].rounds
    images = int(conditions["batch"])
    latency = Measurement("latency", tuple(seconds for runs in rounds for seconds in runs), conditions)
    throughput = Measurement("throughput", tuple(images * len(runs) / sum(runs) for runs in rounds), conditions)
    if number == 0:
        return latency, throughput
    against = {**conditions, "baseline": baseline}
    return latency, throughput, Measurement("latency_ratio", timed.ratios(number), against)


def _doubts(timed: Interleaved, number: int, effort: Effort, batch: int) -> tuple[str, ...]:
    """What a reader has to know of how these times were taken."""
    doubts = []
    if timed.noise > interleave.NOISY:
        doubts.append(
            f"the machine was not quiet: the baseline's runs spread over {timed.noise:.0%} before the first round, "
            f"and up to {interleave.NOISY:.0%} counts as quiet"
        )
    if not timed.series[number].steady:
        doubts.append("runs were still getting faster when the warm-up ended")
    precision = ratio_interval(timed.ratios(number)).precision
    if precision > effort.precision:
        doubts.append(
            f"after {len(timed.series[number].rounds)} rounds the latency ratio is known within {precision:.1%}, "
            f"and {effort.precision:.1%} was asked for; more seconds may settle it"
        )
    return tuple(f"batch {batch}: {doubt}" for doubt in doubts)


def _apart(request: process.Request, batches: Sequence[int], common: Conditions) -> _Apart:
    """Memory and the first answer's time by batch size, and the times to open the file, each from a fresh process."""
    first, load_times, notes, crashed = [], [], [], False
    for batch in batches:
        try:
            found = process.spent(dataclasses.replace(request, batch=batch))
        except process.Crashed as error:
            notes.append(f"batch {batch}: it crashed, so it was not timed: {error}")
            crashed = True
            continue
        except CompressError as error:
            notes.append(f"batch {batch}: peak_memory, load_time and first_inference are missing: {error}")
            continue
        conditions: Conditions = {**common, "batch": batch}
        first.append(Measurement("peak_memory", (float(found.peak_bytes),), {**conditions, "reading": found.reading}))
        first.append(Measurement("first_inference", (found.first_seconds,), conditions))
        on_device = {"allocated_memory": found.allocated_bytes, "device_memory": found.device_bytes}
        first += [Measurement(name, (float(b),), conditions) for name, b in on_device.items() if b is not None]
        load_times.append(found.load_seconds)
    load = (Measurement("load_time", tuple(load_times), common),) if load_times else ()
    return _Apart((*first, *load), tuple(notes), crashed)


def _add(entry: Entry, measurements: tuple[Measurement, ...], notes: tuple[str, ...] = ()) -> Entry:
    return dataclasses.replace(entry, measurements=entry.measurements + measurements, notes=entry.notes + notes)
