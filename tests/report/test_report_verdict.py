from dataclasses import replace
from pathlib import Path

import pytest
import recorded

from compress.measurement import Entry
from compress.report import report as reports
from compress.report.comparison import Row, headline, rows, under
from compress.report.verdict import verdict


def compared(folder: Path, *entries: Entry) -> tuple[Row, ...]:
    return rows(reports.from_recordings([recorded.write(folder / "measurements.json", *entries)]))


def test_the_verdict_says_how_much_faster_and_smaller_for_what_and_where(tmp_path: Path) -> None:
    assert verdict(compared(tmp_path, recorded.entry(), recorded.pruned())) == (
        "resnet20-half-int8 is 3.90x faster at batch 1 and 64 and 6.38x smaller than resnet20-fp32, "
        "for 0.83 points of accuracy, on onnxruntime, 1 thread, Intel Xeon 8481C."
    )


def test_a_difference_inside_the_noise_is_not_called_one(tmp_path: Path) -> None:
    said = verdict(compared(tmp_path, recorded.entry(), recorded.int8()))
    assert "with no difference in accuracy shown (+0.02 pp on 10,000 images)" in said
    same = verdict(compared(tmp_path, recorded.entry(), recorded.int8(speedup=1.0)))
    assert "speed at batch 1 and 64: no difference shown" in same
    assert "faster" not in same


def test_a_slower_and_larger_candidate_is_called_that(tmp_path: Path) -> None:
    said = verdict(compared(tmp_path, recorded.entry(), recorded.int8(speedup=0.5, size=2_182_000)))
    assert said.startswith("resnet20-int8 is 2.00x slower at batch 1 and 64 and 2.00x larger than resnet20-fp32")


def test_few_rounds_claim_no_speed(tmp_path: Path) -> None:
    said = verdict(compared(tmp_path, recorded.entry(), recorded.int8(rounds=5)))
    assert "too few rounds to tell" in said
    assert "faster" not in said


def test_an_accuracy_without_answers_is_called_untested(tmp_path: Path) -> None:
    said = verdict(compared(tmp_path, recorded.entry(), replace(recorded.pruned(), correct=None)))
    assert "for 0.83 points of accuracy (not tested)" in said


def test_a_better_candidate_is_said_to_be_better(tmp_path: Path) -> None:
    said = verdict(compared(tmp_path, recorded.entry(), recorded.int8(accuracy=93.0, flips=0.0)))
    assert "with 1.27 points more accuracy" in said


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (replace(recorded.int8(), measurements=()), "resnet20-int8 beside resnet20-fp32, accuracy not measured."),
        (replace(recorded.int8(), measurements=recorded.int8().measurements[1:2]), "resnet20-int8 is 3.60x smaller than resnet20-fp32, accuracy not measured."),
        (recorded.int8(size=1_091_500, speedup=1.002), "about as large"),
    ],
)  # fmt: skip
def test_what_was_not_measured_is_not_claimed(tmp_path: Path, candidate: Entry, said: str) -> None:
    assert said in verdict(compared(tmp_path, recorded.entry(), candidate))


def test_an_accuracy_on_other_images_is_not_compared(tmp_path: Path) -> None:
    entry = recorded.int8()
    accuracy = replace(entry.measurements[0], conditions={"runtime": "onnxruntime", "split": "test", "images": 100})
    other = replace(entry, measurements=(accuracy, *entry.measurements[1:]), correct=None)
    said = verdict(compared(tmp_path, recorded.entry(), other))
    assert "at 91.75 % accuracy, the baseline's not measured on the same images" in said


def test_of_several_the_fastest_near_the_baseline_is_spoken_of(tmp_path: Path) -> None:
    far = recorded.entry("quick-and-wrong", accuracy=80, flips=0.1, speedup=9, size=90_000)
    said = verdict(compared(tmp_path, recorded.entry(), recorded.int8(), recorded.pruned(), far))
    assert said.startswith("Fastest of 3 candidates within 1 point of accuracy: resnet20-half-int8 is ")
    alone = verdict(
        compared(tmp_path, recorded.entry(), far, replace(far, subject=replace(far.subject, name="b", digest="b")))
    )
    assert alone.startswith("Most accurate of 2 candidates: quick-and-wrong is ")
    blind = [replace(each, measurements=each.measurements[1:]) for each in (recorded.int8(), recorded.pruned())]
    assert verdict(compared(tmp_path, recorded.entry(), *blind)).endswith("the accuracy of none was measured.")


def test_a_baseline_alone_is_said_to_be_alone(tmp_path: Path) -> None:
    assert verdict(compared(tmp_path, recorded.entry())) == (
        "Only resnet20-fp32 was measured; there is no candidate to set against it."
    )


def test_ratios_against_another_baseline_are_not_used(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "m", recorded.entry(), recorded.int8(), recorded.pruned())
    found = rows(reports.from_recordings([path], baseline="resnet20-int8"))
    assert all(speed.speedup is None for row in found for speed in row.speeds)


def test_the_speed_seen_at_a_glance_is_the_largest_batch_that_all_were_timed_at(tmp_path: Path) -> None:
    found = headline(compared(tmp_path, recorded.entry(), recorded.int8(), recorded.pruned()))
    assert found
    assert found.batch == 64
    partly = replace(
        recorded.int8(),
        measurements=tuple(each for each in recorded.int8().measurements if each.conditions.get("batch") != 64),
    )
    fewer = headline(compared(tmp_path, recorded.entry(), partly))
    assert fewer
    assert fewer.batch == 1


def test_the_change_in_accuracy_comes_from_the_samples(tmp_path: Path) -> None:
    row = compared(tmp_path, recorded.entry(), recorded.pruned())[1]
    assert row.accuracy
    assert row.accuracy.change == pytest.approx(90.90 - 91.73)
    assert row.accuracy.paired
    assert row.accuracy.paired.change == pytest.approx(row.accuracy.change)
    assert row.accuracy.interval
    assert row.accuracy.interval.holds(90.90)


def test_throughput_is_the_recorded_one_or_what_the_latency_comes_to(tmp_path: Path) -> None:
    speed = compared(tmp_path, recorded.entry())[0].speeds[1]
    assert speed.images_per_second == pytest.approx(64 / 26.8e-3, rel=0.01)
    told = replace(speed.sample.measurement, metric="throughput", values=(1000.0,))
    entry = replace(recorded.entry(), measurements=(*recorded.entry().measurements, told))
    assert compared(tmp_path, entry)[0].speeds[1].images_per_second == 1000


def test_conditions_are_said_in_words() -> None:
    assert under({"runtime": "onnxruntime", "batch": 64, "threads": 1}) == "onnxruntime, batch 64, 1 thread"
    assert under({"split": "test", "threads": 2}, ("split", "threads")) == "split test, 2 threads"
