"""Documents are true: their commands run, their tables are the recorded ones, their links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*.md")]
BLOCK = re.compile(r"^```(?P<kind>sh run|python run)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copytree(ROOT / "models", folder / "models")
    return folder


def blocks():
    for page in PAGES:
        for number, found in enumerate(BLOCK.finditer(page.read_text()), 1):
            yield pytest.param(found["kind"], found["text"], id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize(("kind", "text"), blocks())
def test_what_a_page_tells_to_run_runs(place, kind, text):
    if kind == "python run":
        done = subprocess.run([sys.executable, "-c", text], cwd=place, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "compress", line
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=place, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_the_readme_shows_the_recorded_figures():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import readme
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    text = (ROOT / "README.md").read_text()
    assert readme.TABLE.search(text)
    assert readme.filled(text) == text, "run: python benchmarks/readme.py"


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_the_tests_and_scripts_a_page_names_are_there(page):
    for name in re.findall(r"`((?:tests|benchmarks|models)/[\w./-]+\.\w+)`", page.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_wheel_holds_one_top_level_package(tmp_path):
    import zipfile

    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    subprocess.run(words, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"compress"}
    for needed in (
        "compress/py.typed",
        "compress/cli/main.py",
        "compress/recipes/digits.yaml",
        "compress/report/page.html.j2",
    ):
        assert needed in names
    source = {str(path.relative_to(ROOT)) for path in (ROOT / "compress").rglob("*.py")}
    source |= {f"compress/{path.relative_to(ROOT)}" for path in (ROOT / "cli").rglob("*.py")}
    assert source <= set(names), "a package is missing from pyproject.toml"
