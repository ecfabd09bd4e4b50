"""Files that are either there whole or not there at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress import storage
from compress.errors import CompressError, ResourceError


def test_a_written_file_holds_the_bytes_and_leaves_nothing_beside_it(tmp_path):
    storage.write_bytes(tmp_path / "a.bin", b"12345")
    assert (tmp_path / "a.bin").read_bytes() == b"12345"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    storage.write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), storage.writing(path) as part:
        part.write_bytes(b"half of the n")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.bin"]


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(ResourceError, match=r"cannot write .*nowhere.*No such file"):
        storage.write_bytes(tmp_path / "nowhere" / "a.bin", b"1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    storage.write_bytes(path, b"old")
    with (
        pytest.raises(ResourceError, match="the disk is full"),
        storage.writing(path),
        Path("/dev/full").open("wb") as full,
    ):
        full.write(b"new")
    assert path.read_bytes() == b"old"


def test_an_unreadable_file_is_said(tmp_path):
    with pytest.raises(CompressError, match=r"cannot read the report .*No such file"):
        storage.read_bytes(tmp_path / "none", "report")


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        storage.folder(tmp_path / "file" / "inner")


WRITER = """
import sys
from pathlib import Path
from compress import storage
path = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number = (number + 1) % 256
    storage.write_bytes(path, bytes([number]) * 2_000_000)
"""


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.bin"
    for moment in (0.01, 0.05, 0.08, 0.11, 0.17):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(moment)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 2_000_000
        assert content == content[:1] * 2_000_000
