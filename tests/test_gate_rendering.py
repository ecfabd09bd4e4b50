import io
import json
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
import recorded
from rich.console import Console

from compress import gate, gate_rendering
from compress.gate_rendering import Verdict
from compress.limit import Limit
from compress.report import report as reports

LIMITS = (
    Limit(metric="size", max="500KB"),
    Limit(metric="latency", min_speedup="2.2x", batch=64),
    Limit(metric="load_time", max="1s"),
    Limit(metric="parameters", max_ratio="0.5x", level="warn"),
)


@pytest.fixture
def verdict(tmp_path: Path) -> Verdict:
    report = reports.from_recordings([recorded.write(tmp_path / "m", recorded.entry(), recorded.int8())])
    results = gate.check(report, LIMITS)
    return Verdict(gate.outcome(results), results)


def test_the_outcome_is_said_with_what_it_rests_on(verdict: Verdict) -> None:
    assert (
        gate_rendering.sentence(verdict) == "The gate FAILED: 1 passed, 1 inconclusive, 1 missing, 1 failed (warning)."
    )
    assert gate_rendering.sentence(Verdict("passed", ())) == "The gate passed: there are no limits."
    undecided = Verdict("inconclusive", verdict.results[1:2])
    assert gate_rendering.sentence(undecided) == (
        "The gate is INCONCLUSIVE, which is no pass (measure more, on a quieter machine): 1 inconclusive."
    )


def test_what_was_let_pass_undecided_is_said_loudly(verdict: Verdict) -> None:
    said = gate_rendering.sentence(Verdict("passed", verdict.results[:2]))
    assert said == "The gate let pass what is INCONCLUSIVE, as it was told to: 1 passed, 1 inconclusive."


def test_markdown_has_a_row_for_each_result(verdict: Verdict) -> None:
    text = gate_rendering.markdown(verdict)
    assert text.startswith("### The gate FAILED: ")
    assert "| resnet20-int8 | size: at most 500KB | 303 KB | 197 KB | passed |" in text
    assert "| 2.20x (2.18x to 2.22x) |" in text
    assert "its load\\_time was not measured" in text


def test_junit_fails_what_does_not_pass_but_for_warnings(verdict: Verdict) -> None:
    root = xml.fromstring(gate_rendering.junit(verdict))
    assert (root.get("tests"), root.get("failures")) == ("4", "2")
    failures = [each.get("message") or "" for each in root.iter("failure")]
    assert [message.split(":")[0] for message in failures] == ["inconclusive", "missing"]
    let_pass = xml.fromstring(gate_rendering.junit(Verdict("passed", verdict.results[1:2])))
    assert let_pass.get("failures") == "0"


def test_json_holds_the_numbers_with_their_units(verdict: Verdict) -> None:
    content = json.loads(gate_rendering.dumps(verdict))
    assert (content["kind"], content["outcome"]) == ("compress gate", "failed")
    size = content["results"][0]
    assert {key: size[key] for key in ("value", "bound", "margin", "unit")} == {
        "value": 303000,
        "bound": 500000,
        "margin": 197000,
        "unit": "B",
    }
    assert content["results"][2]["value"] is None


def test_the_terminal_shows_every_result_within_its_width(verdict: Verdict) -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(gate_rendering.terminal(verdict))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for said in ("inconclusive", "missing", "only a", "303 KB", "The gate FAILED"):
        assert said in text
