"""A baseline and its candidates, measured side by side, on a clock that passes only when told to."""

import gzip
import math
import sys
import types

import numpy as np
import pytest
import small_onnx

from compress import measurement, nvml
from compress.benchmark import benchmark
from compress.errors import CompressError, UsageError
from compress.interleave import Effort
from compress.runtime import null
from compress.runtime.null import Cost
from compress.subject import compressed_size

BATCHES = (1, 8)


def write(folder, name, **cost):
    null.write(folder / name, Cost(**cost))
    return folder / name


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("null")
    baseline = write(folder, "base.null", seconds=0.002, memory=30_000_000)
    candidate = write(folder, "small.null", seconds=0.0005, memory=10_000_000)
    return benchmark(baseline, [candidate], "null", batches=BATCHES, threads=3, clock=null.CLOCK)


def find(entry, metric, **conditions):
    found = [
        each for each in entry.measurements if each.metric == metric and conditions.items() <= each.conditions.items()
    ]
    assert len(found) == 1, f"{metric} {conditions}: {found}"
    return found[0]


def test_every_figure_is_the_cost_it_was_given(recording):
    baseline, candidate = recording.entries
    for batch in BATCHES:
        assert find(baseline, "latency", batch=batch).values == pytest.approx([0.002] * 200)
        assert find(candidate, "latency", batch=batch).values == pytest.approx([0.0005] * 200)
        assert find(baseline, "throughput", batch=batch).values == pytest.approx([batch / 0.002] * 10)
        assert find(candidate, "latency_ratio", batch=batch).values == pytest.approx([0.25] * 10)
        difference = (
            find(baseline, "peak_memory", batch=batch).median - find(candidate, "peak_memory", batch=batch).median
        )
        assert difference == pytest.approx(20_000_000, rel=0.05)
        assert len(find(baseline, "first_inference", batch=batch).values) == 1
    assert len(find(baseline, "load_time").values) == len(BATCHES)


def test_a_ratio_names_its_baseline_and_the_baseline_has_none(recording):
    baseline, candidate = recording.entries
    assert find(candidate, "latency_ratio", batch=1).conditions["baseline"] == baseline.subject.digest
    assert not [each for each in baseline.measurements if each.metric == "latency_ratio"]


def test_every_time_says_under_which_conditions(recording):
    for entry in recording.entries:
        for each in entry.measurements:
            if each.metric in ("latency", "throughput", "latency_ratio", "peak_memory"):
                assert {"runtime": "null", "device": "cpu", "threads": 3}.items() <= each.conditions.items()
                assert each.conditions["batch"] in BATCHES
        assert entry.environment.threads == 3
        assert entry.notes == ()


def test_a_recording_is_kept_whole(recording, tmp_path):
    measurement.write(tmp_path / "measurements.json", recording)
    assert measurement.read(tmp_path / "measurements.json") == recording


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Benchmark without the processes for memory: each fails at once."""
    monkeypatch.setattr(sys, "executable", "/bin/false")

    def run(*costs, images=None, batches=(1,), **effort):
        paths = [write(tmp_path, f"{number}.null", **cost) for number, cost in enumerate(costs)]
        return benchmark(
            paths[0], paths[1:], "null", batches=batches, effort=Effort(**effort), images=images, clock=null.CLOCK
        )

    return run


def test_a_process_that_crashes_costs_its_own_figures_and_is_noted(quick):
    recording = quick({}, {}, batches=(1, 2))
    for entry in recording.entries:
        metrics = {each.metric for each in entry.measurements}
        assert {"latency", "throughput", "size"} <= metrics
        assert not {"peak_memory", "load_time", "first_inference"} & metrics
        assert entry.notes == tuple(
            f"batch {batch}: peak_memory, load_time and first_inference are missing: the process that measures it ended with "
            "exit code 1: it said nothing"
            for batch in (1, 2)
        )


def test_a_machine_that_is_not_quiet_is_noted_with_every_subject(quick):
    for entry in quick({"noise": 0.3}, {}).entries:
        assert "batch 1: the machine was not quiet: the baseline's runs spread over" in entry.notes[0]
    assert not any("not quiet" in note for entry in quick({"noise": 0.01}, {}).entries for note in entry.notes)


def test_a_ratio_less_precise_than_asked_for_is_noted_with_its_candidate(quick):
    baseline, candidate = quick({"noise": 0.01}, {"noise": 0.3}, precision=0.005, rounds=10).entries
    assert not any("known within" in note for note in baseline.notes)
    assert any(
        note.startswith("batch 1: after 10 rounds the latency ratio is known within") and "0.5% was asked for" in note
        for note in candidate.notes
    )


def test_a_warm_up_without_end_is_noted(quick):
    notes = quick({"seconds": 1.0}, {"seconds": 1.0}, seconds=0.5).entries[1].notes
    assert "batch 1: runs were still getting faster when the warm-up ended" in notes


def test_a_baseline_alone_is_measured(quick):
    (entry,) = quick({"noise": 0.05}).entries
    assert len(find(entry, "latency").values) == 200


def test_the_same_seed_gives_the_same_recording(quick):
    first, again = (quick({"noise": 0.05, "seed": 4}, {"noise": 0.05, "seed": 5}) for _ in range(2))
    assert first.entries[1].measurements == again.entries[1].measurements


def test_real_images_are_shown_in_turn_until_the_batch_is_full(quick, monkeypatch):
    shown = []
    answer = null.NullSession.__call__
    monkeypatch.setattr(null.NullSession, "__call__", lambda self, images: shown.append(images) or answer(self, images))
    images = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    quick({}, images=images, batches=(5,))
    assert np.array_equal(shown[0][:, 0, 0, 0], [0, 4, 8, 0, 4])


def test_images_that_do_not_fit_all_are_refused(quick):
    with pytest.raises(CompressError, match=r"1.null takes images of shape \(3, 4, 4\), and 0.null of \(1, 2, 2\)"):
        quick({}, {"input_shape": (3, 4, 4)})
    with pytest.raises(CompressError, match="takes images of shape"):
        quick({}, images=np.zeros((2, 1, 5, 5), np.float32))
    with pytest.raises(UsageError, match="there are no images"):
        quick({}, images=np.zeros((0, 1, 2, 2), np.float32))


@pytest.mark.parametrize("runtime", ["onxruntime", "torch:bf61"])
def test_a_misspelt_runtime_is_said_before_any_process_is_started(tmp_path, runtime):
    started = []
    with pytest.raises(UsageError, match=r"unknown .*: did you mean"):
        benchmark(tmp_path / "a.null", [], runtime, progress=lambda task, done, total, detail: started.append(task))
    assert started == []


@pytest.mark.parametrize("batches", [(), (0,), (4, -1)])
def test_batch_sizes_that_cannot_be_are_refused(quick, batches):
    with pytest.raises(UsageError, match="batch sizes are 1 or more"):
        quick({}, batches=batches)


def test_a_quantized_file_says_how_much_of_it_runs_in_integers(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    plain = small_onnx.write(tmp_path / "plain.onnx")
    quantized = small_onnx.write(tmp_path / "quantized.onnx", small_onnx.QUANTIZED)
    effort = Effort(precision=0.5, seconds=1)
    (baseline, candidate) = benchmark(plain, [quantized], "onnxruntime", batches=(1,), effort=effort).entries
    assert not [each for each in baseline.measurements if each.metric == "integer_macs"]
    assert 99 < find(candidate, "integer_macs", runtime="onnxruntime").median < 100


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    """A measuring process that one file crashes, and that says nothing of the others."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\ncase "$*" in *fragile.null*) kill -SEGV $$;; esac\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return write(tmp_path, "fragile.null")


def test_a_candidate_that_crashes_its_process_is_not_timed_and_the_others_are(tmp_path, fragile):
    paths = [write(tmp_path, "base.null"), fragile, write(tmp_path, "slow.null", seconds=0.003)]
    entries = benchmark(paths[0], paths[1:], "null", batches=(2,), clock=null.CLOCK).entries
    assert [entry.subject.name for entry in entries] == ["base.null", "fragile.null", "slow.null"]
    assert {each.metric for each in entries[1].measurements} == {"size", "compressed_size"}
    assert entries[1].notes == (
        "batch 2: it crashed, so it was not timed: the process that measures it ended with SIGSEGV: it said nothing",
    )
    assert find(entries[2], "latency_ratio", batch=2).values == pytest.approx([3.0] * 10)


def test_a_baseline_that_crashes_leaves_nothing_to_time_against(tmp_path, fragile):
    with pytest.raises(CompressError, match=r"nothing can be timed against fragile.null: batch 1: it crashed"):
        benchmark(fragile, [write(tmp_path, "other.null")], "null", batches=(1,), clock=null.CLOCK)


def test_where_the_time_goes_is_recorded_for_the_largest_batch_where_the_runtime_tells(tmp_path, quick):
    path = small_onnx.write(tmp_path / "plain.onnx")
    effort = Effort(precision=0.5, seconds=0.2)
    (entry,) = benchmark(path, [], "onnxruntime", batches=(3, 1), effort=effort).entries
    assert entry.profile.conditions == {"runtime": "onnxruntime", "device": "cpu", "threads": 1, "batch": 3}
    assert [layer.name for layer in entry.layers] == ["convolved", "logits"]
    assert all(entry.profile.layer(layer.name) > 0 for layer in entry.layers)
    assert entry.profile.layer("") < entry.profile.seconds
    assert quick({}).entries[0].profile is None


class Counter:
    """Stands for NVML: a GPU that uses 50 W by the simulated clock, and another megabyte each time it is asked."""

    class NVMLError_NotSupported(Exception):
        pass

    def __init__(self, counts=True):
        self.counts, self.asked = counts, 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self.counts:
            raise self.NVMLError_NotSupported
        return 50 * null.CLOCK.now / 1e6

    def nvmlDeviceGetMemoryInfo(self, handle):
        self.asked += 1
        return types.SimpleNamespace(used=1_000_000 * self.asked)


@pytest.fixture
def on_gpu(tmp_path, monkeypatch):
    """Benchmark a null session of 2 ms as if it were on a GPU that takes 1.5 ms, with this counter or none."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(null.NullSession, "device_seconds", lambda self, images: 0.0015, raising=False)

    def run(counter):
        monkeypatch.setattr(nvml, "gpu", lambda device: nvml.Gpu(counter, 0) if counter else None)
        path = write(tmp_path, "a.null", seconds=0.002)
        (entry,) = benchmark(path, [], "null", batches=(4,), device="cuda", clock=null.CLOCK).entries
        return entry

    return run


def test_on_a_gpu_its_own_time_and_its_energy_are_taken(on_gpu):
    entry = on_gpu(Counter())
    assert find(entry, "device_latency", batch=4, device="cuda").values == (0.0015,) * 20
    joules = find(entry, "energy", batch=4).values
    assert joules == pytest.approx([50 * 0.002 / 4] * 3)
    assert joules != pytest.approx([50 * 0.002 / 4 * 1.01] * 3)


def test_a_gpu_that_does_not_count_its_energy_has_none(on_gpu):
    assert not [each for each in on_gpu(Counter(counts=False)).measurements if each.metric == "energy"]


def test_without_nvml_the_note_says_what_is_skipped_and_how_to_get_it(on_gpu):
    entry = on_gpu(None)
    assert entry.notes[-1] == nvml.MISSING
    assert "compress-cnn[nvml]" in nvml.MISSING
    assert not [each for each in entry.measurements if each.metric == "energy"]


def test_a_cpu_has_no_figures_of_a_gpu(recording):
    metrics = {each.metric for entry in recording.entries for each in entry.measurements}
    assert not {"device_latency", "energy", "device_memory", "allocated_memory"} & metrics
    assert nvml.gpu("cpu") is None


def test_the_packed_size_is_that_of_gzip_with_every_part(tmp_path):
    path = write(tmp_path, "a.null")
    assert compressed_size(path) == pytest.approx(len(gzip.compress(path.read_bytes(), 6)), abs=2)
    (tmp_path / "zeros.null").write_bytes(bytes(5_000_000))
    assert compressed_size(tmp_path / "zeros.null") < 10_000


def test_an_onnx_file_of_another_tool_is_measured_in_its_runtime(tmp_path):
    path = small_onnx.write(tmp_path / "other.onnx")
    effort = Effort(precision=0.5, seconds=1)
    (baseline, candidate) = benchmark(path, [path], "onnxruntime", batches=(2,), effort=effort).entries
    assert {each.metric for each in candidate.measurements} >= {"latency", "latency_ratio", "peak_memory", "load_time"}
    assert all(math.isfinite(value) and value > 0 for each in baseline.measurements for value in each.values)
    assert "other.onnx.json is missing, so parameters, MACs" in baseline.notes[0]
