"""One run on two processes, as torchrun starts them."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from tiny_training import same
from together_training import MASKED, SETTINGS, train

from compress import checkpoint as files
from compress.errors import CompressError, ResourceError
from compress.train.distributed import Place, _together, join, wait

SCRIPT = Path(__file__).with_name("together_training.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def torchrun(folder, *networks):
    return subprocess.run([*TORCHRUN, SCRIPT, folder, *networks], capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two processes train four networks; the second one is killed in the last."""
    folder = tmp_path_factory.mktemp("together")
    return folder, torchrun(folder, "plain", "norms", "integers", "dying")


def after(folder, network, rank=0):
    return files.load(folder / f"{network}-{rank}.safetensors").weights


def furthest(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in a if a[name].is_floating_point())


def test_two_processes_at_a_batch_of_eight_are_one_at_sixteen(run, tmp_path):
    alone = train(tmp_path / "a", "plain", 16, **SETTINGS).weights
    # 10 steps of 0.05, each counted up to 1 / (1 - 0.9) times by momentum, of gradients of length at most 1
    # (they are clipped), whose sums of 16 images' terms are taken in another order in float32
    allowed = 10 * 0.05 * 10 * 16 * 2**-24
    assert furthest(alone, after(run[0], "plain")) < allowed
    wrong = train(tmp_path / "b", "plain", 16, **SETTINGS, rate=0.05 * 1.01).weights
    assert furthest(alone, wrong) > 5 * allowed


@pytest.mark.parametrize("network", ["plain", "norms", "integers"])
def test_all_processes_end_with_the_same_weights_and_statistics(run, network):
    assert same(after(run[0], network, 0), after(run[0], network, 1))


@pytest.mark.parametrize("network", ["norms", "integers"])
def test_masked_weights_stay_zero(run, network):
    zeros = after(run[0], network)[f"{MASKED}.weight"] == 0
    assert zeros[:, ::2].all() and not zeros[:, 1::2].any()


def test_a_process_that_dies_ends_the_run_with_words(run):
    folder, done = run
    assert done.returncode != 0
    assert "another process of this run has ended" in done.stderr
    assert "Signal 9 (SIGKILL)" in done.stderr  # torchrun's own words
    assert not (folder / "dying-0.safetensors").exists()


def test_the_state_it_leaves_is_gone_on_from_by_as_many_processes_only(run, tmp_path):
    left, state = run[0] / "dying.partial.safetensors", tmp_path / "norms.partial.safetensors"
    with safe_open(left, framework="pt") as file:
        assert '"taken": 2' in file.metadata()["compress"]
    state.write_bytes(left.read_bytes())
    with pytest.raises(CompressError, match="left by another run: processes was 2 and is 1"):
        train(tmp_path / "norms.safetensors", "norms", 8, **SETTINGS)
    assert torchrun(tmp_path, "norms").returncode == 0
    assert same(after(tmp_path, "norms"), after(run[0], "norms"))


def test_a_process_alone_is_the_first_of_one_and_waits_for_none():
    assert join("cpu") == Place(0, 1, "cpu")
    wait(Place(0, 1, "cpu"))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "99")
    monkeypatch.setenv("LOCAL_RANK", "98")
    with pytest.raises(ResourceError, match=r"99 processes were started on cuda.*Lower --nproc-per-node"):
        join("cuda")


def test_a_number_of_processes_that_torchrun_did_not_set_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ResourceError, match=r"WORLD_SIZE says that 2 processes .*Start them with torchrun, or unset"):
        join("cpu")


def test_a_lost_process_is_put_in_words():
    words = r"another process of this run has ended.*peer\. Look at .*goes on from the state it last saved"
    with pytest.raises(ResourceError, match=words), _together():
        raise RuntimeError("Connection closed by peer\nand a trace")
