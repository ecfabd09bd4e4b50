import math
from dataclasses import replace
from pathlib import Path

import pydantic
import pytest
import recorded

from compress import measurement
from compress.errors import CompressError
from compress.measurement import METRICS, Measurement, Recording, comparable


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_measured_and_has_a_meaning(metric: str) -> None:
    assert Measurement(metric, (1.0,)).median == 1
    assert METRICS[metric].meaning


@pytest.mark.parametrize(
    ("metric", "values", "conditions", "said"),
    [
        ("speed", (1.0,), {}, "unknown metric 'speed'"),
        ("size", (), {}, "needs at least one value"),
        ("size", (math.nan,), {}, "finite"),
        ("latency", (1.0, math.inf), {}, "finite"),
        ("size", (-1.0,), {}, "every value finite, from 0 to inf"),
        ("top1", (100.1,), {}, "every value finite, from 0 to 100"),
        ("latency", (1.0,), {"batch": "large"}, "batch is a count of 1 or more; it is 'large'"),
        ("latency", (1.0,), {"threads": 0}, "threads is a count of 1 or more; it is 0"),
        ("top1", (1.0,), {"images": -5}, "images is a count of 1 or more; it is -5"),
    ],
)
def test_what_cannot_have_been_measured_is_refused(
    metric: str, values: tuple[float, ...], conditions: dict[str, str | int], said: str
) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Measurement(metric, values, conditions)
    assert said in str(caught.value)


def test_a_recording_survives_its_file(tmp_path: Path) -> None:
    recording = Recording((recorded.entry(), recorded.int8(), recorded.pruned()))
    measurement.write(tmp_path / "m.json", recording)
    assert measurement.read(tmp_path / "m.json") == recording


def test_a_recording_with_answers_that_are_none_is_refused(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "m.json", recorded.entry())
    path.write_text(path.read_text().replace('"correct": "', '"correct": "2'))
    with pytest.raises(CompressError, match=r"at entries\.0\.correct: String should match pattern"):
        measurement.read(path)


def test_times_are_comparable_on_one_machine_whatever_the_versions() -> None:
    later = replace(recorded.MACHINE, versions={"onnxruntime": "2.0"}, date="2027-01-01", python="3.13.0")
    assert comparable(recorded.MACHINE, later) == ()
    assert comparable(recorded.MACHINE, recorded.OTHER_MACHINE) == ("cpu", "cores")
    assert comparable(recorded.MACHINE, replace(recorded.MACHINE, gpu="NVIDIA H200", threads=2)) == ("gpu", "threads")


def test_percentiles_are_those_of_the_samples() -> None:
    found = Measurement("latency", tuple(float(each) for each in range(101)))
    assert [found.percentile(share) for share in (0, 50, 90, 99)] == [0, 50, 90, 99]
