"""What a kill cannot take."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("script", "seed"), [("killed_training.py", 1), ("killed_qat.py", 3)])
def test_a_run_killed_at_random_points_ends_the_same_bit_for_bit(tmp_path, script, seed):
    words = [sys.executable, Path(__file__).with_name(script), tmp_path, str(seed)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    straight, killed = done.stdout.split()[-2:]
    assert straight.startswith("sha256:") and straight == killed
