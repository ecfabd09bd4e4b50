"""What builds rely on: the action, the workflow in the documents, the limits of the project's own gate."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import recorded

from compress import limit, yaml_file
from compress.judge import Asked, judge
from compress.report import report as reports

ROOT = Path(__file__).parents[1]
ACTION: dict[str, Any] = yaml_file.read(ROOT / "action.yml").content
SHELL = "\n".join(step.get("run", "") for step in ACTION["runs"]["steps"])
LIGHT = re.findall(r"[\w.-]+", SHELL[SHELL.index("constraints.txt") :].partition("\\\n")[2].partition("\n")[0])


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def test_the_action_takes_its_inputs_from_the_environment_alone() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert all(step["shell"] == "bash" for step in ACTION["runs"]["steps"] if "run" in step)
    assert "${{" not in SHELL
    used = {
        text for step in ACTION["runs"]["steps"] for part in ("env", "with") for text in step.get(part, {}).values()
    }
    assert used == {f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"]}


def test_the_script_of_the_action_gives_the_command_its_words(tmp_path: Path) -> None:
    """Run by a real shell, with a command in the place of compress that prints what it was given."""
    program = tmp_path / "compress-gate" / "bin" / "compress"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    program.chmod(0o755)
    script = ACTION["runs"]["steps"][-1]["run"]
    given = {
        "REPORT": "a report.json",
        "LIMITS": "gate.yaml",
        "OPTIONS": "--max-size 5KB --candidate *",
        "INCONCLUSIVE": "warn",
        "JUNIT": "",
    }

    def words(**changes: str) -> list[str]:
        environment = {"RUNNER_TEMP": str(tmp_path), **given, **changes}
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        found: list[str] = json.loads(done.stdout)
        return found

    start = ["gate", "a report.json", "--inconclusive", "warn"]
    assert words() == [*start, "--limits", "gate.yaml", "--max-size", "5KB", "--candidate", "*"]
    assert words(LIMITS="", OPTIONS="", JUNIT="out dir/gate.xml") == [*start, "--junit", "out dir/gate.xml"]
    assert words(OPTIONS="$(touch gone); x")[-2:] == ["gone);", "x"]


def test_a_gate_needs_no_more_than_the_action_installs(tmp_path: Path) -> None:
    """In a process that cannot see the other packages the library depends on."""
    assert "click" in LIGHT
    assert "torch" not in LIGHT
    path = tmp_path / "report.json"
    recording = recorded.write(tmp_path / "measurements.json", recorded.entry(), recorded.int8())
    path.write_text(reports.dumps(reports.from_recordings([recording])))
    names = re.findall(
        r'^    "([\w.-]+)',
        (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("]")[0],
        re.MULTILINE,
    )
    modules = {"pillow": "PIL", "scikit-learn": "sklearn"}
    hidden = [modules.get(name, name.replace("-", "_")) for name in names if name not in LIGHT]
    assert {"torch", "onnxruntime", "jinja2", "matplotlib"} <= set(hidden)
    code = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {hidden}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        f"sys.argv = ['compress', 'gate', {str(path)!r}, '--max-size', '500KB', '--max-accuracy-drop', '1pp', '--min-speedup', '2x']\n"
        "from compress.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The gate passed" in done.stdout


def test_the_documented_workflow_is_one_and_uses_the_action_as_it_is() -> None:
    [workflow] = [yaml_file.parse(text, "ci.md").content for text in blocks("ci.md", "yaml")]
    assert set(workflow) == {"name", "on", "permissions", "jobs"}
    steps = workflow["jobs"]["gate"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    [gate] = [step for step in steps if step.get("uses", "").startswith("OWNER/compress@")]
    assert set(gate["with"]) <= set(ACTION["inputs"])
    assert {name for name, said in ACTION["inputs"].items() if said.get("required")} <= set(gate["with"])
    listed = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE)
    assert listed == list(ACTION["inputs"])


def test_the_documented_limits_can_be_read(tmp_path: Path) -> None:
    [text] = blocks("reports.md", "yaml")
    (tmp_path / "gate.yaml").write_text(text)
    found = limit.read(tmp_path / "gate.yaml")
    assert {each.bound.name for each in found} == {"max", "min", "max_drop", "max_ratio", "min_speedup"}
    documented = (ROOT / "docs" / "reports.md").read_text()
    assert all(f"`{name}`" in documented and preset.source in documented for name, preset in limit.PRESETS.items())


def test_the_recorded_demo_keeps_to_the_limits_of_the_projects_own_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    verdict = judge(ROOT / "reports" / "digits.json", Asked(ROOT / "reports" / "gate.yaml"))
    assert verdict.outcome == "passed"
    assert len(verdict.results) >= 10
