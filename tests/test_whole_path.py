"""The whole path on real digits: a trained network goes in, a smaller, faster, measured one comes out."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from compress import checkpoint, measurement, recipe
from compress.errors import CompressError, UsageError
from compress.execute import Given, execute
from compress.report import report as reports

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "models" / "digits.safetensors"

QUICK = """
network: {name: digits_cnn}
data: {name: digits}
steps:
  - prune: {macs: 0.4, round_to: 16, images: 128}
  - train: {epochs: 3, batch: 64, rate: 0.03, distillation: 0.9}
  - fold
  - quantize: {target: onnxruntime-cpu, images: 128}
benchmark: {batches: [1], seconds: 1}
gate:
  - {metric: integer_macs, candidate: 04-quantize.onnx, min: 100%}
"""


def quick(folder: Path) -> recipe.Recipe:
    (folder / "quick.yaml").write_text(QUICK)
    return recipe.read(folder / "quick.yaml")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    return folder / "run", execute(quick(folder), folder / "run", Given(folder, DIGITS))


def test_the_result_is_smaller_integer_and_nearly_as_right(done):
    folder, outcome = done
    by_name = {entry.subject.name: entry for entry in measurement.read(folder / "measurements.json").entries}
    assert list(by_name) == ["baseline.onnx", "03-fold.onnx", "04-quantize.onnx"]

    def figure(name, metric):
        return next(found.median for found in by_name[name].measurements if found.metric == metric)

    assert figure("baseline.onnx", "top1") >= 98
    assert figure("04-quantize.onnx", "top1") >= figure("baseline.onnx", "top1") - 5
    assert figure("04-quantize.onnx", "size") < 0.2 * figure("baseline.onnx", "size")
    assert figure("04-quantize.onnx", "macs") <= 0.4 * figure("baseline.onnx", "macs")
    assert figure("04-quantize.onnx", "integer_macs") == 100
    assert len(by_name["04-quantize.onnx"].correct) == 360
    assert outcome.verdict.outcome == "passed"


def test_every_hop_is_in_the_ledger_and_passed(done):
    folder, _ = done
    entries = measurement.read(folder / "measurements.json").entries
    hops = {entry.subject.name: [(hop.name, hop.verdict) for hop in entry.parity] for entry in entries}
    assert hops == {
        "baseline.onnx": [("baseline.onnx", "passed")],
        "03-fold.onnx": [("03-fold", "passed"), ("03-fold.onnx", "passed")],
        "04-quantize.onnx": [("03-fold", "passed"), ("04-quantize", "passed"), ("04-quantize.onnx", "passed")],
    }


def test_the_curves_are_those_of_trainings(done):
    folder, _ = done
    entries = measurement.read(folder / "measurements.json").entries
    steps = {entry.subject.name: [curve.step for curve in entry.curves] for entry in entries}
    assert steps == {"baseline.onnx": ["train"], "03-fold.onnx": ["train"] * 2, "04-quantize.onnx": ["train"] * 2}


def test_the_report_reads_again_and_a_changed_number_is_noticed(done, tmp_path):
    folder, outcome = done
    assert reports.read(folder / "report.json") == outcome.report
    text = (folder / "report.json").read_text()
    (tmp_path / "edited.json").write_text(text.replace('"title": "digits_cnn', '"title": "mine', 1))
    with pytest.raises(CompressError, match="changed after it was written"):
        reports.read(tmp_path / "edited.json")


def test_what_is_written_tells_nothing_of_the_machine(done):
    folder, _ = done
    words = {word for word in (str(Path.home()), str(ROOT), str(folder), socket.gethostname()) if len(word) > 4}
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not [word for word in words if word.encode() in content], path.name


def test_the_same_recipe_writes_the_same_checkpoints(done, tmp_path):
    folder, _ = done
    from compress.data.load import load_for
    from compress.pipeline import Resources, run

    start = checkpoint.load(DIGITS)
    data = load_for(start.architecture, start.dataset, "digits")
    run(quick(tmp_path).sequence, start, Resources(data.learning, teacher=start), tmp_path)
    for path in sorted(tmp_path.glob("0*.safetensors")):
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_a_folder_with_another_recipe_is_refused(done, tmp_path):
    folder, _ = done
    other = recipe.Recipe.model_validate({**quick(tmp_path).plain(), "gate": []})
    with pytest.raises(UsageError, match="holds the run of another recipe"):
        execute(other, folder, Given(tmp_path, DIGITS))


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    read = quick(tmp_path)
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        execute(read, tmp_path, Given(tmp_path, DIGITS))


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        ({}, {}, "says not which: give --checkpoint"),
        (
            {"network": {"name": "resnet20"}},
            {"checkpoint": DIGITS},
            "the recipe is for resnet20, and .* holds a digits_cnn",
        ),
        ({"network": {"name": "user", "weights": "untrained"}}, {}, "give --network FILE:FUNCTION"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(tmp_path, change, given, message):
    changed = recipe.Recipe.model_validate({**quick(tmp_path).plain(), **change})
    with pytest.raises(UsageError, match=message):
        execute(changed, tmp_path / "run", Given(tmp_path, **given))
    assert not (tmp_path / "run").exists()


def test_a_report_that_a_limit_needs_and_that_is_not_there_is_said_before_anything_is_trained(tmp_path):
    limit = {"metric": "size", "max_ratio": "1x", "against": "main.json"}
    changed = recipe.Recipe.model_validate({**quick(tmp_path).plain(), "gate": [limit]})
    with pytest.raises(CompressError, match=r"cannot read the compress report .*main\.json"):
        execute(changed, tmp_path / "run", Given(tmp_path, DIGITS))
    assert not (tmp_path / "run").exists()


def test_a_run_killed_in_the_middle_goes_on_to_the_same_result(done, tmp_path):
    folder, _ = done
    quick(tmp_path)
    words = [
        sys.executable,
        "-m",
        "compress",
        "run",
        "quick.yaml",
        "--checkpoint",
        DIGITS,
        "-o",
        "run",
        "--threads",
        "1",
    ]
    first = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "run" / "01-prune.safetensors").exists():
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "run" / "run.json").exists()
    again = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert again.returncode == 0, again.stderr
    assert "01-prune: done already" in again.stderr
    for path in sorted((tmp_path / "run").glob("0*.safetensors")):
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_the_shipped_training_recipe_learns_the_digits(tmp_path):
    short = recipe.read(recipe.find("digits-train")).plain()
    short["steps"][0]["train"]["epochs"] = 4
    short["benchmark"]["seconds"] = 0.5
    execute(recipe.Recipe.model_validate(short), tmp_path / "run", Given(tmp_path))
    (entry,) = measurement.read(tmp_path / "run" / "measurements.json").entries
    assert next(found.median for found in entry.measurements if found.metric == "top1") > 80


def test_the_shipped_cifar_recipe_runs_on_a_few_images(tmp_path, cifar10, resnet20_weights):
    from compress.data.load import load
    from compress.importing import import_checkpoint

    with np.load(cifar10) as arrays:
        few = {name: arrays[name][:640] for name in ("train_images", "train_labels", "test_images", "test_labels")}
        np.savez(tmp_path / "few.npz", **few, class_names=arrays["class_names"])
    start = import_checkpoint(resnet20_weights, "resnet20", load(f"npz:{cifar10}").spec)
    checkpoint.save(start, tmp_path / "base.safetensors")
    short = recipe.read(recipe.find("resnet20-cifar10")).plain()
    short["steps"][1]["train"]["epochs"] = 1
    short["benchmark"] = {"batches": [1], "seconds": 0.5}
    given = Given(tmp_path, tmp_path / "base.safetensors", f"npz:{tmp_path / 'few.npz'}")
    execute(recipe.Recipe.model_validate(short), tmp_path / "run", given)
    entries = measurement.read(tmp_path / "run" / "measurements.json").entries
    top1 = [next(found.median for found in entry.measurements if found.metric == "top1") for entry in entries]
    assert top1[0] > 88
    assert any("seen the validation images" in note for note in entries[-1].notes)
