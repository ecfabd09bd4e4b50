"""Record how often the 95 % interval of a latency ratio holds the truth on this machine: one file against itself.

    python benchmarks/aa.py

200 interleaved benchmarks of at most 0.7 s at batch 1, and as many at batch 8, of the digits CNN in ONNX Runtime on one
thread: about four minutes. Each opens both sessions anew, as `compress benchmark` does. Writes `reports/aa.json` and `reports/aa.md`. Run it on a quiet machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compress import checkpoint, document, storage
from compress.environment import environment
from compress.export import export
from compress.interleave import Effort, interleave
from compress.interval import Interval, latency_interval
from compress.runtime import open_session

ROOT = Path(__file__).parents[1]
EFFORT = Effort(precision=0.005, seconds=0.7)
RUNS, BATCHES = 200, (1, 8)
GOAL = 0.93
"""The share of the intervals that have to hold 1."""


def once(path: Path, batch: int, seed: int) -> Interval:
    """The ratio of a file's latency to its own, of two new sessions that take turns."""
    sides = [open_session("onnxruntime", path, threads=1) for _ in range(2)]
    images = np.random.default_rng(0).standard_normal((batch, *sides[0].input_shape), dtype=np.float32)
    runs = [partial(side, images) for side in sides]
    timed = interleave(runs, EFFORT, np.random.default_rng(seed), time.perf_counter_ns)
    return latency_interval(timed.ratios(1))


def row(batch: int, found: Sequence[Interval]) -> dict[str, Any]:
    """The figures of one batch size, and every interval."""
    covering = sum(each.low <= 1 <= each.high for each in found)
    half_widths = [each.precision for each in found]
    return {
        "batch": batch,
        "runs": len(found),
        "covering": covering,
        "coverage": covering / len(found),
        "half_width_median": statistics.median(half_widths),
        "half_width_p90": float(np.percentile(half_widths, 90)),
        "intervals": found,
    }


def markdown(found: dict[str, Any]) -> str:
    """The record as a table."""
    lines = [
        "# A file against itself", "",
        f"{found['runs']} interleaved benchmarks of at most {EFFORT.seconds:g} s for each batch size, {found['file']} in ONNX Runtime on one "
        f"thread of {found['environment']['cpu']}; made by `benchmarks/aa.py`. Goal: at least {GOAL:.0%} of the 95 % intervals hold 1.", "",
        "| batch | benchmarks | intervals that hold 1 | share | half-width, median | half-width, p90 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [
        f"| {each['batch']} | {each['runs']} | {each['covering']} | {each['coverage']:.1%} | {each['half_width_median']:.2%} "
        f"| {each['half_width_p90']:.2%} |"
        for each in found["batches"]
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help="benchmarks of each batch size; fewer for a trial")
    parser.add_argument("--file", type=Path, help="an ONNX file other than the digits CNN")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "reports", help="folder for both files")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = asked.file or Path(temporary) / "digits.onnx"
        if not asked.file:
            export(checkpoint.load(ROOT / "models" / "digits.safetensors"), path)
        rows = []
        for batch in BATCHES:
            rows.append(row(batch, [once(path, batch, seed) for seed in range(asked.runs)]))
            print({key: value for key, value in rows[-1].items() if key != "intervals"}, flush=True)
    found = {
        "file": path.name, "runs": asked.runs, "goal": GOAL, "batches": rows, "environment": document.plain(environment(1)),
    }  # fmt: skip
    storage.write_text(asked.output / "aa.json", json.dumps(found, indent=1) + "\n")
    storage.write_text(asked.output / "aa.md", markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
