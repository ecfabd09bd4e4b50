"""Record how often a gate is wrong, and how long a large report takes to render.

    python benchmarks/gate.py

Each gate is one interleaved run of its own, judged with `--min-speedup 0.95x`. A file against itself has to pass,
a slower one has to fail: simulated sessions of known cost, and ONNX Runtime on this machine. Writes
`reports/gate.json` and `reports/gate.md`. Run it on a quiet machine: it takes eight minutes there.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compress import checkpoint, document, gate, storage, subject
from compress.environment import environment
from compress.export import export
from compress.importing import import_checkpoint
from compress.interleave import Effort, Run, interleave
from compress.interval import ratio_interval
from compress.limit import Limit
from compress.measurement import Entry, Measurement, Recording
from compress.report import rendering
from compress.report import report as reports
from compress.runtime import open_session
from compress.runtime.null import Clock, NullSession
from compress.self_test import repeated

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
LIMIT = Limit(metric="latency", min_speedup="0.95x")
EFFORT = Effort(precision=0.02, seconds=1.0)
LONGER = Effort(precision=0.02, seconds=3.0)
"""Two threads that wait for each other are either in step or not, for a while: it takes more rounds to see both."""
COUNT = 200


def judged(entry: Entry, ratios: tuple[float, ...]) -> str:
    """What a gate says of latency ratios against a baseline, in a report that holds nothing else."""
    conditions: dict[str, str | int] = {"runtime": "onnxruntime", "batch": 1, "baseline": entry.subject.digest}
    timed = dataclasses.replace(entry, measurements=(Measurement("latency_ratio", ratios, conditions),))
    [result] = gate.check(reports.of(Recording((entry, timed)), "gate"), [LIMIT])
    return result.status


def gates(
    entry: Entry,
    baseline: Run,
    candidate: Run,
    count: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    effort: Effort = EFFORT,
) -> dict[str, Any]:
    """So many gates, each with measurements of its own."""
    found: Counter[str] = Counter()
    slower, rounds, begun = [], [], time.perf_counter()
    for number in range(count):
        timed = interleave([baseline, candidate], effort, np.random.default_rng(number), clock)
        ratios = timed.ratios(1)
        found[judged(entry, ratios)] += 1
        slower.append(ratio_interval(ratios).median)
        rounds.append(len(ratios))
    return {
        "gates": count,
        **{status: found[status] for status in ("passed", "failed", "inconclusive")},
        "time_ratio": statistics.median(slower),
        "rounds": statistics.median(rounds),
        "seconds_each": (time.perf_counter() - begun) / count,
    }


def simulated(entry: Entry, slower: float, noise: float, count: int) -> dict[str, Any]:
    """Gates on two null sessions, every run of which takes its cost times a log-normal factor."""
    clock, draw = Clock(), np.random.default_rng(0)
    images = np.zeros((1, 1, 2, 2), np.float32)

    def run(seconds: float) -> Run:
        return partial(NullSession(lambda: seconds * float(draw.lognormal(0, noise)), clock), images)

    return gates(entry, run(0.0005), run(0.0005 * slower), count, clock)


def cases(folder: Path, count: int) -> Iterator[tuple[str, bool, dict[str, Any]]]:
    """Each case: what it is, whether the candidate is as fast, and how its gates came out."""
    digits, small = folder / "digits.onnx", folder / "small.onnx"
    export(checkpoint.load(ROOT / "models" / "digits.safetensors"), digits)
    export(import_checkpoint(None, "digits_cnn", None, (1, 8, 8)), small)
    entry = dataclasses.replace(subject.entry(digits, environment(1)), measurements=())
    yield "simulated, 5 % noise: itself", True, simulated(entry, 1.0, 0.05, count)
    yield "simulated, 5 % noise: 10 % slower", False, simulated(entry, 1.1, 0.05, count)
    draw, real = np.random.default_rng(0), partial(open_session, "onnxruntime")
    image = draw.standard_normal((1, 1, 32, 32), dtype=np.float32)
    one, same = real(digits, threads=1), real(digits, threads=1)
    yield "digits CNN: itself", True, gates(entry, partial(one, image), partial(same, image), count)
    tiny, session = draw.standard_normal((1, 1, 8, 8), dtype=np.float32), real(small, threads=1)
    tenth = gates(entry, repeated(partial(session, tiny), 10), repeated(partial(session, tiny), 11), count)
    yield "small CNN: 11 answers where the baseline gives 10", False, tenth
    # More threads make so small a network faster on one machine and slower on another: the slower side is the candidate.
    many = draw.standard_normal((64, 1, 32, 32), dtype=np.float32)
    sides = [("one thread", partial(one, many)), ("two threads", partial(real(digits, threads=2), many))]
    trial = interleave([run for _, run in sides], EFFORT, np.random.default_rng(0), time.perf_counter_ns)
    (fast, baseline), (slow, candidate) = sides if ratio_interval(trial.ratios(1)).median > 1 else sides[::-1]
    counts = gates(entry, baseline, candidate, count // 2, effort=LONGER)
    yield f"digits CNN: {slow} where the baseline has {fast}", False, counts


def rendered(folder: Path) -> dict[str, Any]:
    """Seconds after imports to render 40 candidates of 1,000 samples, and the size of the page."""
    import recorded

    report = recorded.forty(folder)
    for render in rendering.RENDERINGS.values():
        render(reports.from_recordings([recorded.run(folder / "small")]))  # imports what it needs
    seconds = {}
    for ending, render in rendering.RENDERINGS.items():
        begun = time.perf_counter()
        text = render(report)
        seconds[ending.removeprefix(".")] = time.perf_counter() - begun
        if ending == ".html":
            size = len(text.encode())
    return {"candidates": 40, "samples": 1000, "seconds": seconds, "html_bytes": size}


def markdown(found: dict[str, Any]) -> str:
    """The record as two tables."""
    lines = [
        "# How often a gate is wrong", "",
        f"Gates with `--min-speedup 0.95x`, each on an interleaved run of its own of at most {EFFORT.seconds:g} s "
        f"({LONGER.seconds:g} s with two threads), on {found['environment']['cpu']}; made by `benchmarks/gate.py`.", "",
        "| candidate | time, of the baseline's | gates | passed | failed | inconclusive | wrong |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in found["cases"]:
        wrong = row["failed"] if row["equal"] else row["gates"] - row["failed"]
        lines.append(
            f"| {row['case']} | {row['time_ratio']:.3f} | {row['gates']} | {row['passed']} | {row['failed']} "
            f"| {row['inconclusive']} | {wrong / row['gates']:.1%} |"
        )
    lines += [
        "", "Wrong is an alarm for a file against itself, and anything but a failure for a slower one.", "",
        "# How long a report takes", "",
        f"{found['rendering']['candidates']} candidates, {found['rendering']['samples']:,} samples of each time; "
        f"the page has {found['rendering']['html_bytes'] / 1e6:.2f} MB.", "",
        "| rendering | seconds after imports |", "| --- | --- |",
    ]  # fmt: skip
    lines += [f"| {ending} | {seconds:.2f} |" for ending, seconds in found["rendering"]["seconds"].items()]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="gates of each case; fewer for a trial")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "reports", help="folder for both files")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found: dict[str, Any] = {"limit": str(LIMIT), "cases": []}
        for case, equal, counts in cases(Path(temporary), asked.count):
            found["cases"].append({"case": case, "equal": equal, **counts})
            print(found["cases"][-1], flush=True)
        found["rendering"] = rendered(Path(temporary) / "forty")
    found["environment"] = document.plain(environment(1))
    storage.write_text(asked.output / "gate.json", json.dumps(found, indent=1) + "\n")
    storage.write_text(asked.output / "gate.md", markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
