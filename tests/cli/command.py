"""The command line as tests use it: typed by a user, in a process of its own, or quickly in this one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from compress.cli import main as command_line

PLAIN = {"COLUMNS": "120", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "GITHUB_STEP_SUMMARY": ""}


def compress(*words: object, cwd: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the installed command the way a user does."""
    return subprocess.run(
        [sys.executable, "-m", "compress", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **PLAIN, **environment},
        check=False,
    )


def run(*words: object, json_too: bool = True) -> Any:
    """What a command about the digits prints in this process, with --json; errors are raised."""
    typed = [*map(str, words), *(["--json"] if json_too else [])]
    if typed[0] != "fold":
        typed += ["--data", "digits"]
    if typed[0] != "import":
        typed += ["--threads", "1"]
    done = CliRunner().invoke(command_line.compress, typed, standalone_mode=False, catch_exceptions=False)
    if done.exception:
        raise done.exception
    return json.loads(done.stdout) if json_too else done.stdout
