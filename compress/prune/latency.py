"""How long a network takes where it will run, beside the one it was made from: exported, and timed in turns."""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.checkpoint import Checkpoint
from compress.errors import UsageError
from compress.export import export
from compress.fold.step import Fold
from compress.interleave import NOISY, Clock, Effort, interleave
from compress.interval import Interval, latency_interval
from compress.pipeline import Resources
from compress.quantity import counted, show
from compress.quantize.step import Quantize
from compress.runtime import open_session
from compress.runtime.tensorrt import require_gpu
from compress.train.distributed import processes

if TYPE_CHECKING:
    from compress.prune.step import Prune

FILES = {"onnxruntime": ("onnx", ".onnx"), "openvino": ("openvino", ".xml"), "tensorrt": ("tensorrt", ".engine")}
"""The format each runtime opens, and how its files end."""
EFFORT = Effort(precision=0.02, seconds=10)
CALIBRATED = 64
"""Images that INT8 is calibrated on for timing: the time does not depend on the ranges."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """A candidate's time as a share of the dense network's, whose time is `dense` seconds; `noise` as in `Interleaved`."""

    share: Interval
    dense: float
    noise: float


class Stopwatch:
    """Times checkpoints against the one it is made with, in the runtime and under the conditions that a step names.

    Sides alternate in random order, so that what slows the machine slows both; the files lie in a temporary folder.
    Raises UsageError where torchrun started several processes, each of which would measure another time, and for
    TensorRT without a GPU.
    """

    def __init__(
        self, step: "Prune", dense: Checkpoint, resources: Resources, clock: Clock = time.perf_counter_ns
    ) -> None:
        if processes() > 1:
            raise UsageError(
                f"{processes()} processes were started, and each would measure another latency and prune another network. "
                "Prune in one process, and train the result with torchrun."
            )
        if step.runtime == "tensorrt":
            require_gpu(resources.device)
        self._step, self._resources, self._clock = step, resources, clock
        self._folder = tempfile.TemporaryDirectory(prefix="compress-")
        self._dense = self._deployed(dense, "dense")

    def __call__(self, candidate: Checkpoint) -> Timing:
        """Export and time one candidate; raises CompressError where it cannot be exported or opened."""
        step, paths = self._step, (self._dense, self._deployed(candidate, "candidate"))
        random = np.random.default_rng(self._resources.seed)
        images = random.standard_normal((step.batch, *candidate.architecture.input_shape), dtype=np.float32)
        sessions = [
            open_session(step.runtime, path, threads=step.timing_threads, device=self._resources.device)
            for path in paths
        ]
        try:
            runs = [partial(session, images) for session in sessions]
            timed = interleave(runs, EFFORT, random, self._clock, self._resources.progress, "latency")
        finally:
            for session in sessions:
                session.close()
        return Timing(latency_interval(timed.ratios(1)), float(np.median(timed.series[0].samples)), timed.noise)

    def fewest(self, at: Callable[[int], Checkpoint], most: int, share: float) -> tuple[int, Timing]:
        """The least number, up to `most`, whose checkpoint takes at most a share `share` of the time, or `most`, by bisection.

        `at` gives a checkpoint for each number, the higher the smaller. The one found is measured again, as the first
        measurement was chosen for being low.
        """
        known: dict[str, bool] = {}

        def fast(number: int) -> bool:
            candidate = at(number)
            shape = str((candidate.architecture.removed, candidate.architecture.widths))
            if shape not in known:
                known[shape] = self(candidate).share.median <= share
            return known[shape]

        low, high = 0, most
        while high - low > 1 and fast(most):
            middle = (low + high) // 2
            low, high = (low, middle) if fast(middle) else (middle, high)
        return high, self(at(high))

    def words(self, timing: Timing) -> str:
        """What was measured, as a note, with what there is to doubt."""
        step = self._step
        kind = "INT8" if step.target else "FP32"
        threads = counted(step.timing_threads, "thread")
        said = (
            f"{timing.share.median:.3f} of the time kept ({timing.share.low:.3f} to {timing.share.high:.3f}) in {step.runtime}, "
            f"{kind}, batch {step.batch}, {threads}; the checkpoint's own is {show(timing.dense, 's')}"
        )
        if timing.noise > NOISY:
            said += f"; the machine was not quiet, runs spread over {timing.noise:.0%}"
        if step.latency is not None and timing.share.high > step.latency:
            said += f"; whether it is {step.latency:g} or less is not certain, measure it with compress benchmark"
        return said

    def _deployed(self, checkpoint: Checkpoint, name: str) -> Path:
        """The file a checkpoint would be deployed as."""
        silent = Resources(self._resources.data, self._resources.seed, user=self._resources.user)
        ready = Fold()(checkpoint, silent)
        if self._step.target:
            ready = Quantize(target=self._step.target, images=CALIBRATED)(ready, silent)
        format, ending = FILES[self._step.runtime]
        path = Path(self._folder.name) / f"{name}{ending}"
        export(ready, path, format, silent.user)
        return path
