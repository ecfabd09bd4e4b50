"""What a file costs a process that has done nothing before: the time to open it and to answer first, and the memory it takes.

`spent` starts that process and asks it; a network that crashes it takes nothing else along.
"""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from compress import document, nvml
from compress.architecture import STRICT
from compress.errors import CompressError
from compress.runtime import open_session, opener

SECONDS = 600
"""Longest a process may take."""

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Reading = Literal["VmHWM", "ru_maxrss"]
"""Who counted the memory. VmHWM can be set back before the file is opened; ru_maxrss cannot, and misses what fits
into memory that was used and freed while libraries were imported."""


class Crashed(CompressError):
    """A signal ended the measuring process: the network took it down, or the system did for want of memory."""


@dataclass(frozen=True, config=STRICT)
class Request:
    """What to open, with which runtime, and how many images to show it.

    `network` names the function of a network of the user's own, as on the command line: `net.py:build`.
    """

    path: str
    runtime: str
    batch: int
    threads: int = 1
    device: str = "cpu"
    network: str | None = None


@dataclass(frozen=True, config=STRICT)
class Spent:
    """Seconds to open the file and to answer the first batch, and bytes of resident memory added by both.

    Opening counts from after the runtime's library was imported, and includes the checks it makes. On a GPU there
    are also the most bytes torch held there, where torch runs the file, and those added by NVML's reading, where it can be read.
    """

    load_seconds: float
    first_seconds: float
    peak_bytes: int
    reading: Reading
    allocated_bytes: int | None = None
    device_bytes: int | None = None


def spent(request: Request) -> Spent:
    """Ask a fresh process; raises CompressError with what it said last where it fails, crashes or never ends."""
    # -P and the parent's own path: a module lying in the working folder is not imported unless it was before.
    command = [sys.executable, "-P", "-m", "compress.process", json.dumps(document.plain(request))]
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CompressError(f"the process that measures it did not end within {SECONDS} s.") from error
    return answer(done)


def answer(done: "subprocess.CompletedProcess[str]") -> Spent:
    """What a process that has ended found out; raises CompressError where it did not."""
    if done.returncode:
        crashed = done.returncode < 0
        how = signal.Signals(-done.returncode).name if crashed else f"exit code {done.returncode}"
        said = done.stderr.strip().rpartition("\n")[2] or "it said nothing"
        raise (Crashed if crashed else CompressError)(f"the process that measures it ended with {how}: {said}")
    return document.validate(
        Spent, json.loads(done.stdout.strip().rpartition("\n")[2]), "the measuring process's answer"
    )


def measure(request: Request) -> Spent:
    """Open the file here and answer one batch of noise; to be called once, in a fresh process."""
    opener(request.runtime)
    user = None
    if request.network is not None:
        from compress.networks import load_user

        user = load_user(request.network)
    gpu = nvml.gpu(request.device)
    gc.collect()
    reading = _set_back()
    before, used = _peak(reading), gpu.used_bytes() if gpu else 0
    start = time.perf_counter()
    session = open_session(
        request.runtime, Path(request.path), threads=request.threads, device=request.device, user=user
    )
    load_seconds = time.perf_counter() - start
    images = np.random.default_rng(0).standard_normal((request.batch, *session.input_shape), dtype=np.float32)
    start = time.perf_counter()
    session(images)
    first_seconds = time.perf_counter() - start
    return Spent(
        load_seconds,
        first_seconds,
        _peak(reading) - before,
        reading,
        allocated_bytes=_allocated(request),
        device_bytes=gpu.used_bytes() - used if gpu else None,
    )


def _allocated(request: Request) -> int | None:
    """The most bytes torch has held on the GPU so far; other runtimes do not say."""
    if request.runtime.partition(":")[0] != "torch" or not request.device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(request.device)


def _set_back() -> Reading:
    """Let the highest resident memory be the present one, where the system can do that."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return "ru_maxrss"
    return "VmHWM"


def _peak(reading: Reading) -> int:
    """The highest resident memory of this process so far, in bytes."""
    if reading == "VmHWM":
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        assert found, "a system with clear_refs counts VmHWM"
        return int(found[1]) * 1024
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def main() -> None:
    """Answer the request on the command line with one line of JSON."""
    request = document.validate(Request, json.loads(sys.argv[1]), "the request")
    try:
        found = measure(request)
    except CompressError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(document.plain(found)) + "\n")


if __name__ == "__main__":
    main()
