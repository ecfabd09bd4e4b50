"""The machine and the software that a measurement is taken with, and nothing of who uses it."""

import datetime
import importlib.metadata
import os
import platform
import re
from pathlib import Path

import compress
from compress.measurement import Environment

PACKAGES = (
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
    "torch-pruning",
    "torchao",
    "torchvision",
)
"""Packages whose version can change a number; those that are not installed are left out."""

NVIDIA = Path("/proc/driver/nvidia")
"""Where NVIDIA's driver says on Linux what there is, without CUDA being started."""

GOVERNORS = Path("/sys/devices/system/cpu")
"""Where Linux says how it chooses each processor's clock; a virtual machine is not told."""


def environment(threads: int) -> Environment:
    """What this process measures on; `threads` is how many a session was given."""
    gpu, driver = gpus(NVIDIA)
    whole = os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(whole)]
    held = [f"held to {', '.join(map(str, cores))} of {whole}"] * (len(cores) < whole)
    return Environment(
        cpu=", ".join([_cpu(), *governors(GOVERNORS), *held]),
        cores=len(cores),
        gpu=gpu,
        driver=driver,
        threads=threads,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        versions={"compress": compress.__version__} | _versions(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def governors(folder: Path) -> list[str]:
    """How the processors' clocks are chosen ("governor performance"), every way met; none where `folder` does not say."""
    files = folder.glob("cpu[0-9]*/cpufreq/scaling_governor")
    return [f"governor {word}" for word in sorted({file.read_text().strip() for file in files})]


def gpus(folder: Path) -> tuple[str | None, str | None]:
    """The NVIDIA GPUs ("2x NVIDIA H200") and the driver's version, as the driver describes them in `folder`."""
    files = sorted(folder.glob("gpus/*/information"))
    models = [
        found[1] for file in files if (found := re.search(r"^Model:\s*(.+?)\s*$", file.read_text(), re.MULTILINE))
    ]
    version = folder / "version"
    driver = re.search(r"Module\s+(?:\S+\s+)*?(\d+(?:\.\d+)+)", version.read_text()) if version.exists() else None
    names = [f"{count}x {name}" if (count := models.count(name)) > 1 else name for name in dict.fromkeys(models)]
    return ", ".join(names) or None, driver[1] if driver else None


def _cpu() -> str:
    """The processor's name; only Linux says more of it than its family."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+?)\s*$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return named[1] if named else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
