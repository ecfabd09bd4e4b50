"""The command line: quick to answer, exact in its exit codes, and never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import compress
from compress.cli import main as command_line
from safetensors.torch import save_file

COMMANDS = list(command_line.COMMANDS)


def without_torch(*words, cwd=None):
    """Run a command in a process that says whether it imported torch."""
    code = (
        "import sys, atexit; atexit.register(lambda: print('TORCH' if 'torch' in sys.modules else 'LIGHT', file=sys.stderr));"
        f"sys.argv = ['compress', *{[str(word) for word in words]!r}]; from compress.cli.main import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    done = compress("import", "--network", "digits_cnn", "--untrained", "--data", "digits", "-o", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize(
    "words", [["--help"], *([name, "--help"] for name in COMMANDS), ["-h"], ["--version"], ["recipes"]]
)
def test_help_is_given_without_torch(words):
    done = without_torch(*words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("LIGHT\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_json(name):
    text = compress(name, "--help", COLUMNS="200").stdout
    assert "Example" in text
    assert f"compress {name}" in text
    assert "--json" in text


def test_a_misspelt_command_gets_the_nearest_without_torch():
    done = without_torch("prnue")
    assert done.returncode == 2
    assert "unknown command 'prnue': did you mean prune" in " ".join(done.stderr.split())
    assert done.stderr.endswith("LIGHT\n")


def test_a_wrong_recipe_is_refused_with_line_and_column_without_torch(tmp_path):
    (tmp_path / "wrong.yaml").write_text(
        "network: {name: digits_cnn}\ndata: {name: digits}\nsteps:\n  - prune: {chanel_ratio: 0.5}\n"
    )
    done = without_torch("run", "wrong.yaml", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2
    text = " ".join(done.stderr.split())
    assert "wrong.yaml:4:" in text
    assert "steps.0.prune.chanel_ratio" in text
    assert "channel_ratio" in text.replace("chanel_ratio", "")
    assert done.stderr.endswith("LIGHT\n")
    assert not (tmp_path / "out").exists()


def test_show_reads_a_header_without_torch(base):
    done = without_torch("show", base)
    assert done.returncode == 0
    assert "digits_cnn" in done.stdout
    assert done.stderr.endswith("LIGHT\n")


def wrong_input(folder: Path, base: Path):
    """Each wrong request: its words, the exit code, and what the message has to say."""
    (folder / "text.safetensors").write_text("hello")
    (folder / "short.safetensors").write_bytes(base.read_bytes()[:-7])
    (folder / "newer.safetensors").write_bytes(base.read_bytes().replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    torch.save(torch.nn.Linear(2, 2), folder / "pickled.pth")
    save_file({"weight": torch.zeros(2)}, folder / "other.safetensors")
    save_file({"weight": torch.tensor([float("nan")])}, folder / "nan.safetensors")
    (folder / "empty").mkdir()
    out = ["-o", "out.safetensors"]
    network = ["--network", "digits_cnn", "--data", "digits"]
    return {
        "no such file": (["fold", "none.safetensors", *out], 3, "cannot read the checkpoint none.safetensors"),
        "not a checkpoint": (["fold", "text.safetensors", *out], 3, "not a checkpoint of compress"),
        "cut short": (["fold", "short.safetensors", *out], 3, "is damaged"),
        "a newer format": (["fold", "newer.safetensors", *out], 3, "has format 9"),
        "a pickled module": (["import", "pickled.pth", *network, *out], 3, "pickled.pth"),
        "other weights": (["import", "other.safetensors", *network, *out], 3, "conv1.weight"),
        "an unknown network": (["import", "other.safetensors", "--network", "resnet21", "--data", "digits", *out], 2, "resnet20"),
        "unknown data": (["import", "other.safetensors", "--network", "digits_cnn", "--data", "digit", *out], 2, "did you mean digits"),
        "an unknown target": (["quantize", base, "--data", "digits", "--target", "onnxruntime", *out], 2, "onnxruntime-cpu"),
        "an unknown criterion": (["prune", base, "--macs", "0.5", "--criterion", "l3", *out], 2, "l2"),
        "a ratio out of range": (["prune", base, "--macs", "1.5", *out], 2, "--macs"),
        "no target": (["prune", base, *out], 2, "exactly one target"),
        "two targets": (["prune", base, "--macs", "0.5", "--channel-ratio", "0.5", *out], 2, "exactly one target"),
        "an empty folder": (["train", base, "--data", "imagefolder:empty", *out], 3, "empty"),
        "the input as output": (["fold", base, "-o", base], 2, "never overwritten"),
        "an artifact as output": (["fold", base, "-o", "base.onnx"], 2, "give -o base.safetensors"),
        "a place that is not there": (["fold", base, "-o", "nowhere/out.safetensors"], 5, "cannot write"),
        "no data": (["train", base, *out], 2, "give --data NAME"),
        "the wrong order": (["quantize", base, "--data", "digits", *out], 3, "fold it first"),
        "an unknown device": (["train", base, "--data", "digits", "--device", "tpu", *out], 2, "cpu, cuda or cuda:N"),
        "no such recipe": (["run", "digit", "-o", "x"], 2, "digits"),
        "no checkpoint for a recipe": (["run", "digits", "-o", "x"], 2, "--checkpoint"),
        "a gate without limits": (["gate", "text.safetensors"], 3, "is not JSON"),
        "a seed below zero": (["train", base, "--data", "digits", "--seed", "-1", *out], 2, "--seed"),
        "an engine's setting": (["export", base, "--workspace", "64", "-o", "out.onnx"], 2, "--workspace is about building an engine"),
        "a checkpoint as ONNX": (["lint", base, "--target", "tensorrt"], 3, "looks like a checkpoint: compress export"),
        "an unknown option": (["fold", base, "--fast", *out], 2, "No such option"),
    }  # fmt: skip


def test_wrong_input_ends_in_one_message_its_exit_code_and_no_file(tmp_path, base):
    before = base.read_bytes()
    for what, (words, code, message) in wrong_input(tmp_path, base).items():
        done = compress(*words, "--json", cwd=tmp_path)
        found = json.loads(done.stdout)["error"]
        assert (what, done.returncode, found["exit_code"]) == (what, code, code), done.stdout
        assert message in found["message"], what
        assert "Traceback" not in done.stderr + done.stdout, what
        assert not list(tmp_path.glob("out*")), what
    assert base.read_bytes() == before


def test_an_error_is_one_paragraph_on_stderr(tmp_path, base):
    done = compress("fold", "none.safetensors", "-o", "out.safetensors", cwd=tmp_path)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: cannot read the checkpoint")
    assert "Traceback" not in done.stderr


def test_steps_are_commands_that_chain(tmp_path, base):
    done = compress(
        "prune",
        base,
        "--data",
        "digits",
        "--channel-ratio",
        "0.5",
        "--images",
        "64",
        "-o",
        tmp_path / "a.safetensors",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["record"]["step"] == "prune"
    done = compress("fold", tmp_path / "a.safetensors", "-o", tmp_path / "b.safetensors")
    assert done.returncode == 0, done.stderr
    assert "batch norms folded" in done.stdout
    done = compress("export", tmp_path / "b.safetensors", "-o", tmp_path / "b.onnx", "--json")
    assert json.loads(done.stdout)["precision"] == "fp32"
    done = compress("parity", tmp_path / "b.safetensors", tmp_path / "b.onnx", "--data", "digits", "--json")
    hop = json.loads(done.stdout)["entries"][0]["parity"][0]
    assert hop["figures"]["normalised_max_error"] <= 1e-4
    done = compress("evaluate", tmp_path / "b.onnx", "--data", "digits", "-o", tmp_path / "m.json", "--json")
    assert done.returncode == 0, done.stderr
    assert {measured["metric"] for measured in json.loads(done.stdout)["entries"][0]["measurements"]} >= {
        "top1",
        "top5",
        "size",
    }
    assert json.loads((tmp_path / "m.json").read_text())["kind"] == "compress measurements"


def test_progress_goes_to_stderr_in_plain_lines_where_it_is_no_terminal(tmp_path, base):
    done = compress(
        "train", base, "--data", "digits", "--epochs", "1", "--batch", "256", "-o", tmp_path / "a.safetensors"
    )
    assert done.returncode == 0, done.stderr
    assert "train: 5/5 epoch 1/1 loss" in done.stderr
    assert "train: wrote" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can make a small disk")
def test_a_full_disk_is_said_and_nothing_is_left_on_it(tmp_path, base):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        done = compress("fold", base, "-o", disk / "out.safetensors", "--json")
        left = list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "the disk is full" in json.loads(done.stdout)["error"]["message"]
    assert left == []


def test_env_says_nothing_of_the_user_or_the_paths():
    text = compress("env").stdout
    assert "torch" in text
    assert str(Path.home()) not in text
    assert os.uname().nodename not in text
