"""What a file costs a fresh process."""

import dataclasses
import subprocess
import sys
import types

import pytest

from compress import nvml, process
from compress.errors import CompressError
from compress.process import Request, answer, spent
from compress.runtime import null

MEGABYTE = 1_000_000


def request(path, memory):
    null.write(path, null.Cost(memory=memory))
    return Request(str(path), "null", batch=2)


def ended(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_the_memory_found_is_the_memory_taken(tmp_path):
    small, large = (spent(request(tmp_path / f"{size}.null", size * MEGABYTE)) for size in (20, 60))
    assert large.reading == small.reading
    between = large.peak_bytes - small.peak_bytes
    assert between == pytest.approx(40 * MEGABYTE, abs=MEGABYTE)
    assert 20 * MEGABYTE <= small.peak_bytes + 0.1 * MEGABYTE < 30 * MEGABYTE
    assert 0 < small.load_seconds < 60
    assert 0 < small.first_seconds < 60
    assert small.allocated_bytes is None
    assert small.device_bytes is None


def test_memory_used_before_the_file_is_opened_does_not_count(tmp_path):
    """A process that has had 200 MB already, with the counter that can be set back and the one that cannot."""
    code = (
        "import sys, json; from compress import process; "
        "{}; held = b'1' * 200_000_000; del held; "
        "sys.argv = ['', {!r}]; process.main()"
    )
    text = '{"path": "%s", "runtime": "null", "batch": 1}'
    asked = request(tmp_path / "a.null", 50 * MEGABYTE)
    line = text % asked.path
    assert answer(ended(code.format("0", line))).peak_bytes == pytest.approx(50 * MEGABYTE, rel=0.1)
    missing = "from pathlib import Path; process.CLEAR = Path('/nowhere/clear_refs')"
    found = answer(ended(code.format(missing, line)))
    assert found.reading == "ru_maxrss"
    assert found.peak_bytes < 50 * MEGABYTE


def test_what_libraries_print_is_not_taken_for_the_answer():
    line = '{"load_seconds": 0.5, "first_seconds": 0.25, "peak_bytes": 7, "reading": "VmHWM"}'
    assert answer(ended(f"print('hello'); print('{line}')")) == process.Spent(0.5, 0.25, 7, "VmHWM")


def test_a_crash_is_an_error_that_names_it():
    with pytest.raises(CompressError, match="ended with SIGABRT: it said nothing"):
        answer(ended("import os; os.abort()"))
    with pytest.raises(CompressError, match="ended with exit code 1: MemoryError"):
        answer(ended("raise MemoryError"))


def test_a_file_the_process_refuses_is_an_error_in_its_words(tmp_path):
    (tmp_path / "a.null").write_text("{}")
    with pytest.raises(CompressError, match=r"exit code 1: .*a.null is not a compress null session"):
        spent(Request(str(tmp_path / "a.null"), "null", batch=1))


def test_a_process_without_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "SECONDS", 0.001)
    with pytest.raises(CompressError, match=r"did not end within 0.001 s"):
        spent(request(tmp_path / "a.null", 0))


def test_a_module_in_the_working_folder_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('run by whoever put it here')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('run by whoever put it here')")
    monkeypatch.chdir(tmp_path)
    assert spent(request(tmp_path / "a.null", 0)).peak_bytes >= 0


def test_a_network_of_the_users_own_is_opened_there_too(tmp_path):
    from compress import checkpoint, networks
    from compress.architecture import Architecture

    file = tmp_path / "net.py"
    file.write_text("from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))\n")
    user = networks.load_user(f"{file}:build")
    architecture = Architecture("user", "build", {}, (3, 8, 8), code=user.digest)
    path = tmp_path / "user.safetensors"
    checkpoint.save(checkpoint.Checkpoint(architecture, networks.create(architecture, user).state_dict()), path)
    found = spent(Request(str(path), "torch", batch=2, network=f"{file}:build"))
    assert found.load_seconds > 0


def test_what_a_gpu_holds_is_read_before_and_after(tmp_path, monkeypatch):
    """A GPU that has 700 bytes in use before and 1,000 after, and torch that says 200 of them are its own."""
    import torch

    readings = iter((700, 1000))
    monkeypatch.setattr(nvml, "gpu", lambda device: types.SimpleNamespace(used_bytes=lambda: next(readings)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 200)
    asked = request(tmp_path / "a.null", 0)
    assert process.measure(dataclasses.replace(asked, device="cuda")).device_bytes == 300
    assert process._allocated(dataclasses.replace(asked, runtime="torch:bf16", device="cuda")) == 200
    assert process._allocated(dataclasses.replace(asked, device="cuda")) is None
