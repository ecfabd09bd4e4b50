import json
from dataclasses import replace
from pathlib import Path

import pytest
import recorded

from compress import document, storage
from compress.errors import CompressError, UsageError
from compress.measurement import Measurement
from compress.report import report as reports
from compress.report.report import Report


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return reports.from_recordings([recorded.run(tmp_path / "run")])


def test_reading_what_was_written_gives_the_same_report(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "main.json"
    storage.write_text(path, reports.dumps(report))
    assert reports.read(path) == report
    assert reports.dumps(reports.read(path)) == path.read_text()


def test_the_baseline_comes_first_and_the_recipe_is_taken_along(report: Report) -> None:
    assert [each.subject.name for each in report.candidates] == ["resnet20-fp32", "resnet20-int8", "resnet20-half-int8"]
    assert report.recipe
    assert "prune" in report.recipe


def test_a_number_changed_by_hand_is_noticed(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "main.json"
    path.write_text(reports.dumps(report).replace("303000.0", "203000.0"))
    with pytest.raises(CompressError, match="was changed after it was written") as caught:
        reports.read(path)
    assert caught.value.exit_code == 3


def test_a_new_layout_of_the_same_content_is_no_change(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "main.json"
    path.write_text(json.dumps(json.loads(reports.dumps(report)), indent=4, sort_keys=True))
    assert reports.read(path) == report


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format", 99, "has format 99, and this version of compress reads up to 1. Upgrade"),
        ("kind", "compress gate", "is not a compress report but a compress gate. One is made with: compress report"),
        ("report", {}, "is not as it should be at report.title"),
    ],
)
def test_another_document_is_refused(report: Report, tmp_path: Path, key: str, value: object, said: str) -> None:
    path = tmp_path / "main.json"
    path.write_text(json.dumps({**json.loads(reports.dumps(report)), key: value}))
    with pytest.raises(CompressError, match=said):
        reports.read(path)


def test_a_report_cut_short_is_refused(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "main.json"
    path.write_text(reports.dumps(report)[:-100])
    with pytest.raises(CompressError, match="cut short"):
        reports.read(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_figure_that_is_no_finite_number_is_refused(report: Report, tmp_path: Path, number: str) -> None:
    path = tmp_path / "main.json"
    for figure in ("303000.0", "3.1e-07"):  # a measurement, a parity figure
        path.write_text(reports.dumps(report).replace(figure, number, 1))
        with pytest.raises(CompressError, match="finite"):
            reports.read(path)


def test_a_report_without_its_baseline_is_refused(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "main.json"
    path.write_text(
        reports.dumps(report).replace(f'"baseline": "{report.baseline}",\n  "s', '"baseline": "sha256:0",\n  "s')
    )
    with pytest.raises(CompressError, match="nothing was recorded about its baseline sha256:0"):
        reports.read(path)


def test_a_recording_of_more_fields_is_refused(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "measurements.json", recorded.entry())
    path.write_text(path.read_text().replace('"notes": []', '"notes": [], "extra": 1'))
    with pytest.raises(CompressError, match=r"entries\.0\.extra"):
        reports.from_recordings([path])


def test_the_baseline_can_be_named_by_name_or_digest(tmp_path: Path) -> None:
    folder = recorded.run(tmp_path)
    assert reports.from_recordings([folder], baseline="resnet20-int8").baseline == recorded.digest("resnet20-int8")
    start = recorded.digest("resnet20-int8")[7:15]
    assert reports.from_recordings([folder], baseline=start).baseline == recorded.digest("resnet20-int8")
    with pytest.raises(UsageError, match="unknown baseline 'resnet20-int': did you mean resnet20-int8"):
        reports.from_recordings([folder], baseline="resnet20-int")


def test_a_name_of_two_subjects_names_no_baseline(tmp_path: Path) -> None:
    twin = replace(recorded.int8(), subject=replace(recorded.int8().subject, digest=recorded.digest("twin")))
    folder = recorded.run(tmp_path, recorded.entry(), recorded.int8(), twin)
    with pytest.raises(UsageError, match="2 subjects are called 'resnet20-int8'; name the baseline by its digest"):
        reports.from_recordings([folder], baseline="resnet20-int8")


def test_the_baseline_is_what_the_ratios_were_taken_against(tmp_path: Path) -> None:
    report = reports.from_recordings([recorded.run(tmp_path, recorded.int8(), recorded.entry())])
    assert report.candidates[0].subject.name == "resnet20-fp32"


def test_without_ratios_the_baseline_is_what_was_recorded_first(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "measurements.json", replace(recorded.int8(), measurements=()), recorded.entry())
    assert reports.from_recordings([path]).candidates[0].subject.name == "resnet20-int8"


def test_nothing_to_report_on_is_an_error_that_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no measurements\.json in "):
        reports.from_recordings([tmp_path])
    with pytest.raises(UsageError, match="nothing was measured in no recording"):
        reports.from_recordings([])
    with pytest.raises(UsageError, match="nothing was measured in"):
        reports.from_recordings([recorded.write(tmp_path / "measurements.json")])


def test_sources_are_named_without_the_folders_of_the_machine(report: Report) -> None:
    assert [source.name for source in report.sources] == ["run/measurements.json"]
    assert "/" not in document.plain(report)["title"]


def test_parts_of_one_subject_are_joined_over_recordings(tmp_path: Path) -> None:
    whole = recorded.int8()
    parts = [replace(whole, measurements=(each,)) for each in whole.measurements]
    paths = [recorded.write(tmp_path / f"{number}" / "measurements.json", part) for number, part in enumerate(parts)]
    baseline = recorded.write(tmp_path / "baseline.json", recorded.entry())
    report = reports.from_recordings([baseline, *paths])
    found = report.candidates[1]
    assert [sample.measurement for sample in found.samples] == list(whole.measurements)
    assert [sample.sources for sample in found.samples] == [(source.digest,) for source in report.sources[1:]]
    assert (found.parity, found.layers) == (whole.parity, whole.layers)


def test_a_recording_given_twice_counts_once(tmp_path: Path) -> None:
    folder = recorded.run(tmp_path)
    once, twice = reports.from_recordings([folder]), reports.from_recordings([folder, folder / "measurements.json"])
    assert once.candidates == twice.candidates


def test_more_rounds_on_the_same_machine_are_put_together(tmp_path: Path) -> None:
    one, two = recorded.int8(), recorded.int8(seed=1)
    paths = [
        recorded.write(tmp_path / name, entry) for name, entry in (("0", recorded.entry()), ("1", one), ("2", two))
    ]
    [sample] = reports.from_recordings(paths).candidates[1].find("latency_ratio", batch=64)
    assert len(sample.measurement.values) == 60
    assert len(sample.sources) == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (recorded.int8(size=400_000), "disagree about its size, and of the same file cannot differ"),
        (recorded.int8(seed=1, environment=recorded.OTHER_MACHINE), "disagree about its latency, and were taken under different cpu, cores"),
        (
            recorded.int8(seed=1, environment=replace(recorded.MACHINE, versions={"onnxruntime": "2.0"})),
            "were taken under different versions",
        ),
    ],
)  # fmt: skip
def test_recordings_that_contradict_each_other_are_refused(tmp_path: Path, other: object, said: str) -> None:
    paths = [recorded.write(tmp_path / "a", recorded.entry(), recorded.int8()), recorded.write(tmp_path / "b", other)]  # type: ignore[arg-type]
    with pytest.raises(CompressError, match=said):
        reports.from_recordings(paths)


def test_a_file_timed_against_itself_is_its_own_candidate(tmp_path: Path) -> None:
    accuracy, *others = recorded.entry().measurements
    itself = recorded.digest("resnet20-fp32")
    timed = recorded.entry(seed=1)
    ratios = Measurement(
        "latency_ratio",
        (1.0, 1.01, 0.99),
        {"runtime": "onnxruntime", "device": "cpu", "batch": 1, "threads": 1, "baseline": itself},
    )
    benchmark = recorded.write(
        tmp_path / "benchmark",
        replace(recorded.entry(), measurements=tuple(others)),
        replace(timed, measurements=(*timed.measurements[1:], ratios)),
    )
    evaluate = recorded.write(tmp_path / "evaluate", replace(recorded.entry(), measurements=(accuracy,)))
    baseline, again = reports.from_recordings([benchmark, evaluate]).candidates
    assert baseline.subject == again.subject
    assert not baseline.find("latency_ratio")
    assert again.find("latency_ratio", batch=1)[0].measurement == ratios
    assert [each.find("top1")[0].measurement for each in (baseline, again)] == [accuracy, accuracy]
    assert len(baseline.find("latency")) == len(again.find("latency")) == 2
    assert baseline.find("latency") != again.find("latency")


def test_answers_that_are_not_those_of_the_accuracy_are_not_taken_for_them(tmp_path: Path) -> None:
    entry = recorded.int8()
    other = replace(entry, correct=recorded.answers(80))
    [kept] = (
        reports.from_recordings([recorded.write(tmp_path / "a", recorded.entry(), entry)]).candidates[1].find("top1")
    )
    [left] = (
        reports.from_recordings([recorded.write(tmp_path / "b", recorded.entry(), other)]).candidates[1].find("top1")
    )
    assert kept.correct == entry.correct
    assert left.correct is None


def test_a_counterpart_is_measured_under_the_same_conditions(report: Report) -> None:
    baseline, candidate = report.candidates[:2]
    for sample in candidate.find("latency"):
        found = baseline.counterpart(sample)
        assert found
        assert found.measurement.conditions == sample.measurement.conditions
    [accuracy] = candidate.find("top1")
    elsewhere = replace(
        accuracy, measurement=Measurement("top1", (90.0,), {"runtime": "torch", "split": "test", "images": 10_000})
    )
    assert baseline.counterpart(elsewhere) == baseline.find("top1")[0]
    fewer = replace(
        accuracy, measurement=Measurement("top1", (90.0,), {"runtime": "onnxruntime", "split": "test", "images": 100})
    )
    assert baseline.counterpart(fewer) is None
