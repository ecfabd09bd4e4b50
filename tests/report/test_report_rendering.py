import io
import json
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path

import pytest
import recorded
from rich.console import Console

from compress.errors import ResourceError
from compress.measurement import Entry, Hop
from compress.report import rendering, table
from compress.report import report as reports
from compress.report.report import Report

HOSTILE = 'x | y <script>alert("1")</script> *b* `c` [d](e) \x1b[31m\x07 $5$ {{ 7*7 }}'


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return reports.from_recordings([recorded.run(tmp_path / "run")])


def hostile(folder: Path) -> Report:
    """A report in which every string that comes from a file or a model tries to be something else."""
    entry = recorded.pruned()
    subject = replace(entry.subject, name=HOSTILE, network=HOSTILE, format=HOSTILE)
    layers = tuple(replace(layer, name=HOSTILE, kind=HOSTILE, note=HOSTILE) for layer in entry.layers[:2])
    curves = tuple(replace(curve, step=HOSTILE, figures={HOSTILE: (1.0, 2.0)}) for curve in entry.curves)
    parity = (Hop(HOSTILE, "failed", HOSTILE, {HOSTILE: 1.0}, {HOSTILE: 0.5}),)
    machine = replace(recorded.MACHINE, cpu=HOSTILE, versions={HOSTILE: HOSTILE})
    found = replace(
        entry, subject=subject, layers=layers, curves=curves, parity=parity, notes=(HOSTILE,), environment=machine
    )
    path = recorded.write(folder / "measurements.json", recorded.entry(), found)
    return reports.from_recordings([path], title=HOSTILE, recipe=f"```\n{HOSTILE}\n````\n")


def shown(report: Report, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(rendering.terminal(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("ending", rendering.RENDERINGS)
def test_every_rendering_names_every_subject_and_is_always_the_same(report: Report, ending: str) -> None:
    render = rendering.RENDERINGS[ending]
    text = render(report)
    assert text == render(report)
    plain = text.replace("\\", "")
    assert all(candidate.subject.name in plain for candidate in report.candidates)


@pytest.mark.parametrize("ending", [ending for ending in rendering.RENDERINGS if ending != ".json"])
def test_every_rendering_is_made_from_the_json_alone(report: Report, tmp_path: Path, ending: str) -> None:
    (tmp_path / "main.json").write_text(reports.dumps(report))
    render = rendering.RENDERINGS[ending]
    assert render(reports.read(tmp_path / "main.json")) == render(report)


def test_all_files_are_written_beside_each_other(report: Report, tmp_path: Path) -> None:
    files = rendering.write(report, tmp_path / "reports" / "v1.2")
    assert [path.name for path in files] == ["v1.2.json", "v1.2.md", "v1.2.html", "v1.2.xml"]
    assert all(path.stat().st_size for path in files)
    assert len(list((tmp_path / "reports").iterdir())) == 4


def test_a_name_with_one_of_the_endings_is_meant_without_it(report: Report, tmp_path: Path) -> None:
    files = rendering.write(report, tmp_path / "today.html")
    assert [path.name for path in files] == ["today.json", "today.md", "today.html", "today.xml"]


def test_a_place_that_cannot_be_written_is_refused(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        rendering.write(report, tmp_path / "file" / "main")


@pytest.mark.parametrize("ending", [".md", ".html"])
def test_what_a_reader_has_to_know_is_on_the_page(report: Report, ending: str) -> None:
    text = rendering.RENDERINGS[ending](report).replace("\\", "")
    for said in (
        "no difference shown, p = ", "difference shown, p &lt; 0.001" if ending == ".html" else "difference shown, p < 0.001",
        "skipped", "tensorrt is not installed", "the weights have seen the validation images", "its outputs are the classes",
        "91.17 to 92.25", "Intel Xeon 8481C", "prune: {macs: 0.5}", reports.digest(report), *(source.digest for source in report.sources),
    ):  # fmt: skip
        assert said in text, said


def test_markdown_shows_hostile_text_as_it_is(tmp_path: Path) -> None:
    text = rendering.markdown(hostile(tmp_path))
    outside = text[: text.index("<summary>Recipe")]
    assert "<script" not in outside.replace("\\<script", "")
    assert "\x1b" not in text.split("yaml\n")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert (
        len({line.replace("\\|", "").count("|") for line in rows if "resnet20-fp32" in line and "1.09 MB" in line}) == 1
    )
    assert "`````yaml\n```\n" in text  # the fence is longer than any in the recipe


def test_a_table_in_markdown_has_as_many_cells_in_every_row(tmp_path: Path) -> None:
    made = table.table("t", ["a|", "b", "c"], [["x|y", "1", ""], ["z\nz", "2", "3"]])
    lines = [line.replace("\\|", "") for line in table.markdown(made).splitlines()[2:]]
    assert [line.count("|") for line in lines] == [4, 4, 4, 4]
    assert lines[2] == "| xy | 1 | – |"


def test_columns_in_which_nothing_stands_are_left_out() -> None:
    made = table.table("t", ["a|", "b", "c"], [["x", "", "1"], ["y", "", "2"]])
    assert [column.title for column in made.columns] == ["a", "c"]


def test_junit_counts_hops_and_a_skipped_one_is_no_pass(tmp_path: Path) -> None:
    void = Hop("fold", "void", "outputs do not vary", {}, {})
    report = reports.from_recordings(
        [recorded.run(tmp_path, recorded.entry(), recorded.int8(parity=(*recorded.HOPS, void)))]
    )
    root = xml.fromstring(rendering.junit(report))
    assert {key: root.get(key) for key in ("tests", "failures", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "skipped": "1",
    }
    suite = root.findall("testsuite")[1]
    assert [case.get("name") for case in suite.iter("testcase")] == ["prune", "export", "tensorrt", "fold"]
    assert [child.tag for case in suite.iter("testcase") for child in case] == ["system-out", "skipped", "failure"]
    sizes = [each.get("value") for each in suite.iter("property") if (each.get("name") or "").startswith("size")]
    assert sizes == ["303000.0"]


def test_junit_is_xml_whatever_the_names(tmp_path: Path) -> None:
    root = xml.fromstring(rendering.junit(hostile(tmp_path)))
    assert any("<script>" in (each.get("name") or "") for each in root.iter("testsuite"))


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_every_column_whole(report: Report, width: int) -> None:
    text = shown(report, width)
    assert max(map(len, text.splitlines())) <= width
    words = text.replace("\n", " ")
    for said in (
        "12.2 ms",
        "303 KB",
        "136 k",
        "20.5 M",
        "100.00 %",
        "10.2 MB",
        "3.90x",
        "skipped",
        "seen the validation",
    ):
        assert said in words, said


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    assert "\x1b" not in shown(hostile(tmp_path))


def test_several_of_one_name_are_shown_with_mean_and_spread(tmp_path: Path) -> None:
    def seed(number: int, accuracy: float) -> Entry:
        entry = recorded.pruned(accuracy=accuracy)
        return replace(entry, subject=replace(entry.subject, digest=recorded.digest(f"seed {number}")))

    report = reports.from_recordings(
        [recorded.run(tmp_path, recorded.entry(), seed(1, 90.8), seed(2, 90.9), seed(3, 91.0))]
    )
    text = rendering.markdown(report)
    assert "| resnet20-half-int8 | 3 | 90.90 % | -0.83 pp | 0.10 points | 90.80 % to 91.00 % |" in text


def test_the_json_holds_raw_samples_and_nothing_computed(report: Report) -> None:
    content = json.loads(reports.dumps(report))
    assert content["kind"] == "compress report"
    entry = content["report"]["sources"][0]["entries"][1]
    assert len(next(each for each in entry["measurements"] if each["metric"] == "latency")["values"]) == 200
    assert "speedup" not in reports.dumps(report)
