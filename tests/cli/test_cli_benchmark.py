"""`compress benchmark`: an option that would change nothing is refused."""

import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from compress.cli import main as command_line

from compress.errors import ResourceError
from compress.runtime import null


def benchmark(*words):
    """The result of the command, which raises what it would say."""
    words = ["benchmark", *map(str, words)]
    return CliRunner().invoke(command_line.compress, words, standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--self-test", "-o", "a.json"], "-o means nothing with --self-test"),
        (["--self-test", "--seconds", "1"], "--seconds means nothing with --self-test"),
        (["--self-test", "a.null", "b.null"], "of one file, or of none"),
        (["--self-test", "a.null", "--batch", "1", "--batch", "8"], "at one batch size"),
        (["--self-test", "--runtime", "torch"], "Name the file to open"),
        (["a.null", "--runs", "5"], "--runs means nothing without --self-test"),
        ([], "give the files to measure"),
    ],
)
def test_words_that_a_benchmark_or_a_self_test_does_not_read_are_refused(words, said):
    with pytest.raises(click.UsageError, match=said):
        benchmark(*words)


def test_everything_is_held_to_the_cores_named_and_that_is_recorded(tmp_path):
    null.write(tmp_path / "a.null", null.Cost())
    core, path = max(os.sched_getaffinity(0)), tmp_path / "m.json"
    words = ["benchmark", "a.null", "--seconds", "0.5", "--batch", "1", "--core", str(core), "-o", path.name]
    done = subprocess.run(
        [sys.executable, "-c", "from compress.cli.main import main; main()", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    held = json.loads(path.read_text())["entries"][0]["environment"]
    assert held["cores"] == 1
    assert held["cpu"].endswith(f"held to {core} of {os.cpu_count()}") == (os.cpu_count() > 1)


def test_cores_that_are_not_there_are_refused():
    with pytest.raises(ResourceError, match="the cores 4095 were asked for"):
        benchmark("a.null", "--core", 4095)


def test_a_self_test_prints_its_counts_as_json(tmp_path):
    null.write(tmp_path / "a.null", null.Cost())
    done = benchmark("--self-test", tmp_path / "a.null", "--runs", 1, "--batch", 2, "--json")
    assert [each["what"] for each in json.loads(done.stdout)["trials"]][-1] == "a.null, batch 2"
