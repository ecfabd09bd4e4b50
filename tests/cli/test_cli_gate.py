"""`compress report`, `compare`, `gate` and `show` as a user types them: exit codes, and what is wrong with the input."""

import json
import sys
import xml.etree.ElementTree as xml
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded
from command import compress
from compress.cli import main as command_line

from compress import limit
from compress.measurement import Entry
from compress.report import report as reports


@pytest.fixture
def gate(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any]]:
    """`compress gate ... --json` in this process: its exit code, and what it prints."""

    def run(*words: object) -> tuple[int, Any]:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        monkeypatch.setattr(sys, "argv", ["compress", "gate", *map(str, words), "--json"])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        said = capsys.readouterr()
        assert said.err == ""
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(said.out)

    return run


def put(path: Path, *entries: Entry) -> Path:
    recording = recorded.write(path.with_suffix(".measurements"), *entries)
    path.write_text(reports.dumps(reports.from_recordings([recording])))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, two reports, limits, and reports with something wrong."""
    home = tmp_path_factory.mktemp("gate")
    recorded.run(home / "run")
    put(home / "main.json", recorded.entry(), recorded.int8(size=290_000))
    today = put(home / "today.json", recorded.entry(), recorded.int8())
    put(home / "one.json", recorded.entry(rounds=1, samples=1), recorded.int8(rounds=1, samples=1))
    put(
        home / "elsewhere.json", *(each(environment=recorded.OTHER_MACHINE) for each in (recorded.entry, recorded.int8))
    )
    text = today.read_text()
    baseline = reports.read(today).baseline
    (home / "newer.json").write_text(text.replace('"format": 1', '"format": 2', 1))
    (home / "edited.json").write_text(text.replace("303000.0", "203000.0"))
    (home / "nan.json").write_text(text.replace("303000.0", "NaN"))
    (home / "baseless.json").write_text(
        text.replace(f'"baseline": "{baseline}",\n  "s', '"baseline": "sha256:0",\n  "s')
    )
    (home / "unknown.yaml").write_text("limits:\n  - metric: size\n    maxx: 5KB\n")
    (home / "units.yaml").write_text("limits:\n  - metric: size\n    max: 5mb/s\n")
    return home


SIZE = ["--max-size", "500KB"]
ABSOLUTE = ["--max-latency", "1s"]
VERDICTS = {
    "passed": (["today.json", *SIZE, "--max-accuracy-drop", "0.5pp", "--min-speedup", "2x"], 0, "passed"),
    "failed": (["today.json", "--max-size", "300KB"], 1, "failed"),
    "inconclusive": (["today.json", "--min-speedup", "2.2x", "--batch", 64], 4, "inconclusive"),
    "inconclusive is failed": (["today.json", "--min-speedup", "2.2x", "--inconclusive", "fail"], 1, "failed"),
    "inconclusive is passed": (["today.json", "--min-speedup", "2.2x", "--inconclusive", "warn"], 0, "passed"),
    "one sample": (["one.json", "--min-speedup", "1x", "--batch", 1], 4, "inconclusive"),
    "missing": (["today.json", "--min-sparsity", "50%"], 1, "failed"),
    "missing for that runtime": (["today.json", "--min-speedup", "1x", "--runtime", "tensorrt"], 1, "failed"),
    "a skipped hop": (["today.json", "--min-parity", "100%"], 1, "failed"),
    "only a warning": (["today.json", "--max-size", "300KB", "--level", "warn"], 0, "passed"),
    "a share of the baseline's": (["today.json", "--max-size", "0.3x", "--max-macs", "1x"], 0, "passed"),
    "against another report": (["today.json", "--max-size", "1.02x", "--against", "main.json"], 1, "failed"),
    "a preset": (["today.json", "--preset", "mlperf-tiny-ic"], 0, "passed"),
    "another machine": (["elsewhere.json", *ABSOLUTE], 1, "failed"),
    "any machine": (["elsewhere.json", *ABSOLUTE, "--any-machine"], 0, "passed"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "code", "outcome"), VERDICTS.values(), ids=VERDICTS)
def test_the_exit_code_is_the_verdict(
    gate: Callable[..., tuple[int, Any]], words: list[object], code: int, outcome: str
) -> None:
    ended, found = gate(*words)
    assert (ended, found["kind"], found["outcome"]) == (code, "compress gate", outcome)


REFUSED = {
    "a newer format": (["newer.json", *SIZE], 3, "has format 2, and this version of compress reads up to 1"),
    "edited by hand": (["edited.json", *SIZE], 3, "was changed after it was written"),
    "no baseline": (["baseless.json", *SIZE], 3, "nothing was recorded about its baseline sha256:0"),
    "NaN": (["nan.json", *SIZE], 3, "finite"),
    "a wrong unit": (["today.json", "--max-size", "5mb/s"], 2, "'mb/s' is no unit that fits. Write it as 3B, 3KB, 3MB"),
    "a wrong unit in a file": (["today.json", "--limits", "units.yaml"], 2, "units.yaml:3:10: limits.0.max: cannot read '5mb/s'"),
    "an unknown key": (["today.json", "--limits", "unknown.yaml"], 2, "unknown.yaml:3:5: limits.0.maxx: there is no such key; did you mean max?"),
    "an unknown preset": (["today.json", "--preset", "mlperf"], 2, "did you mean mlperf-tiny-ic"),
    "an unknown candidate": (["today.json", *SIZE, "--candidate", "resnet20-int"], 2, "did you mean resnet20-int8"),
    "no limits": (["today.json"], 2, "a gate without limits passes everything"),
    "nothing that is against": (["today.json", *SIZE, "--against", "main.json"], 2, "--against means nothing to the limits"),
    "no recorded report": (["today.json", "--max-size", "1x", "--against", "none.json"], 3, "cannot read the compress report none.json"),
    "the report as output": (["today.json", *SIZE, "--junit", "today.json"], 2, "never overwritten"),
    "a limits file that is there": (["today.json", "--init", "unknown.yaml"], 2, "exists already"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_input_is_named(
    gate: Callable[..., tuple[int, Any]], words: list[object], code: int, message: str
) -> None:
    ended, found = gate(*words)
    assert (ended, found["error"]["exit_code"]) == (code, code)
    assert message in found["error"]["message"]


def test_a_workflow_gets_its_summary_and_its_junit(folder: Path, tmp_path: Path) -> None:
    summary, junit = tmp_path / "summary.md", tmp_path / "gate.xml"
    done = compress("gate", "today.json", *SIZE, "--junit", junit, cwd=folder, GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stderr
    assert "The gate passed: 1 passed." in done.stdout
    assert summary.read_text().startswith("### The gate passed: 1 passed.")
    assert xml.fromstring(junit.read_text()).get("failures") == "0"


def test_limits_to_start_from_pass_the_report_they_are_drawn_from(folder: Path, tmp_path: Path) -> None:
    done = compress("gate", "today.json", "--init", tmp_path / "gate.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(limit.read(tmp_path / "gate.yaml")) >= 5
    assert compress("gate", "today.json", "--limits", tmp_path / "gate.yaml", cwd=folder).returncode == 0


def test_the_help_names_every_option_and_the_source_of_a_preset(folder: Path) -> None:
    text = compress("gate", "--help", cwd=folder, COLUMNS="250").stdout
    for said in (
        "--max-size",
        "--max-accuracy-drop",
        "--min-speedup",
        "--max-p99",
        "--max-peak-memory",
        "--min-sparsity",
        "--against",
    ):
        assert said in text
    assert limit.PRESETS["mlperf-tiny-ic"].source in text


def test_two_reports_are_set_side_by_side(folder: Path, tmp_path: Path) -> None:
    done = compress("compare", "main.json", "today.json", "-o", tmp_path / "changes.md", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == "compress comparison"
    [size] = [each for each in found["changes"] if (each["subject"], each["metric"]) == ("resnet20-int8", "size")]
    assert (size["before"], size["after"], size["finding"]) == (290_000, 303_000, "worse")
    assert "| resnet20-int8 | size | 290 KB | 303 KB | +4.5 % | worse |" in (tmp_path / "changes.md").read_text()
    assert "no difference shown" in compress("compare", "main.json", "today.json", cwd=folder).stdout
    assert compress("compare", "main.json", "edited.json", cwd=folder).returncode == 3
    assert compress("compare", "main.json", "today.json", "-o", "today.json", cwd=folder).returncode == 2


def test_a_report_is_made_of_several_seeds_with_their_spread(folder: Path, tmp_path: Path) -> None:
    for seed, accuracy in enumerate((90.8, 90.9, 91.0)):
        made = recorded.pruned(accuracy=accuracy)
        named = replace(made, subject=replace(made.subject, digest=recorded.digest(f"seed {seed}")))
        recorded.run(tmp_path / f"seed{seed}", recorded.entry(), named)
    done = compress("report", "seed0", "seed1", "seed2", "-o", "out/seeds", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "seeds.html", "seeds.json", "seeds.md", "seeds.xml",
    ]  # fmt: skip
    assert (
        "| 3 | 90.90 % | -0.83 pp | 0.10 points | 90.80 % to 91.00 % |" in (tmp_path / "out" / "seeds.md").read_text()
    )
