"""What a kill cannot take."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("killed_training.py")


def test_a_run_killed_at_random_points_ends_in_the_same_weights_bit_for_bit(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    straight, killed = done.stdout.split()[-2:]
    assert straight.startswith("sha256:") and straight == killed
