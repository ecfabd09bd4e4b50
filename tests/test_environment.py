"""The machine of a measurement."""

import getpass
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compress import document
from compress.environment import environment, governors, gpus


def test_the_environment_is_this_one():
    found = environment(threads=3)
    assert found.threads == 3
    assert found.cores >= 1
    assert found.cpu
    assert found.python == platform.python_version()
    assert found.versions["numpy"] == np.__version__
    assert "openvino-of-no-one" not in found.versions
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.date)


def test_the_environment_says_nothing_of_who_and_where():
    text = str(document.plain(environment(threads=1)))
    for secret in (platform.node(), getpass.getuser(), str(Path.home()), str(Path.cwd())):
        assert not re.search(rf"\b{re.escape(secret)}\b", text), secret


def test_asking_costs_no_import_of_torch():
    code = "import sys, compress.environment as e; e.environment(1); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def driver(folder: Path, version: str, *models: str) -> Path:
    """What NVIDIA's driver shows under /proc."""
    (folder / "version").write_text(version + "\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n")
    for number, model in enumerate(models):
        gpu = folder / "gpus" / f"0000:0{number}:00.0"
        gpu.mkdir(parents=True)
        (gpu / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 90\nGPU UUID: \t GPU-secret\n")
    return folder


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (dvs-builder@U16)",
            "570.86.10",
        ),
    ],
)
def test_gpu_and_driver_are_read_from_what_the_driver_shows(tmp_path, version, expected):
    assert gpus(driver(tmp_path, version, "NVIDIA H200", "NVIDIA H200", "NVIDIA T4")) == (
        "2x NVIDIA H200, NVIDIA T4",
        expected,
    )


def test_without_a_driver_there_is_no_gpu(tmp_path):
    assert gpus(tmp_path / "nvidia") == (None, None)


def test_the_governors_are_every_way_the_processors_clocks_are_chosen(tmp_path):
    for number, word in enumerate(("powersave", "performance", "powersave")):
        folder = tmp_path / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(word + "\n")
    assert governors(tmp_path) == ["governor performance", "governor powersave"]
    assert governors(tmp_path / "none") == []
