"""What an NVIDIA GPU says of itself through its management library: memory in use, and energy spent.

Both are of the whole GPU, whoever uses it.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WINDOWS, SECONDS = 3, 1.0
"""Energy is read over so many stretches of so many seconds: the counter moves ten times a second on some GPUs."""
MISSING = (
    "device_memory and energy are skipped: NVML cannot be read here. "
    "Install it with: python -m pip install 'compress-cnn[nvml]'"
)


@dataclass(frozen=True)
class Gpu:
    """One GPU as the library knows it."""

    library: Any
    handle: Any

    def used_bytes(self) -> int:
        """Memory in use."""
        return int(self.library.nvmlDeviceGetMemoryInfo(self.handle).used)

    def joules(self) -> float | None:
        """Energy spent since the driver was loaded, None where the GPU does not count it (before Volta)."""
        try:
            return float(self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1000
        except self.library.NVMLError_NotSupported:
            return None


def gpu(device: str) -> Gpu | None:
    """The GPU torch calls `device`, with CUDA started on it; None for a CPU, and where NVML cannot be read."""
    if not device.startswith("cuda"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    torch.zeros(1, device=device)  # what CUDA itself takes is in use before anything is measured
    if importlib.util.find_spec("pynvml") is None:
        return None
    library = importlib.import_module("pynvml")
    try:
        library.nvmlInit()
        return Gpu(library, library.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}"))
    except library.NVMLError:
        return None


def energy(gpu: Gpu, run: Callable[[], object], images: int, clock: Callable[[], int]) -> tuple[float, ...]:
    """Joules for an image in each of a few stretches of runs of so many images; () where the GPU does not count them.

    `clock` is in nanoseconds.
    """
    found = []
    for _ in range(WINDOWS):
        before, end, done = gpu.joules(), clock() + round(SECONDS * 1e9), 0
        while not done or clock() < end:
            run()
            done += images
        after = gpu.joules()
        if before is None or after is None:
            return ()
        found.append((after - before) / done)
    return tuple(found)
