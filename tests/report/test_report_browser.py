"""The page in a real browser; skipped where no Chromium is installed."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import recorded
from chromium import Browser, chromium
from PIL import Image

from compress.report import report as reports
from compress.report.html import html

SIZES = [(width, scheme) for width in (400, 1600) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    path = folder / "report.html"
    path.write_text(html(reports.from_recordings([recorded.run(folder)])))
    return path


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_the_page_opens_without_a_complaint_or_a_request(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, scheme)
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]


def test_a_page_that_fetches_or_runs_something_is_complained_of(browser: Browser, page: Path, tmp_path: Path) -> None:
    """What the test above would say if the page did."""
    worse = tmp_path / "worse.html"
    worse.write_text(page.read_text().replace("</main>", "<script>1</script><img src='other.png'></main>"))
    browser.open(worse, 1600)
    complaints = " ".join(browser.complaints())
    assert "script-src" in complaints
    assert "img-src" in complaints


@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_is_wider_than_the_screen_or_too_small_to_read(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    sizes = "[...document.querySelectorAll('svg text')].map(each => each.getBoundingClientRect().height)"
    assert min(browser.evaluate(sizes)) >= 11
    fonts = "[...document.querySelectorAll('td, th, small, p, li')].map(each => parseFloat(getComputedStyle(each).fontSize))"
    assert min(browser.evaluate(fonts)) >= 11.5


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_every_plot_is_drawn_in_the_colours_of_the_page(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, scheme)
    boxes = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].map(each => { const box = each.getBoundingClientRect();"
        " return [box.left, box.top + scrollY, box.right, box.bottom + scrollY] })"
    )
    assert len(boxes) == 3
    grey = np.asarray(Image.open(io.BytesIO(browser.picture())).convert("L"), dtype=float)
    for left, top, right, bottom in boxes:
        assert right - left > 300
        drawn = grey[round(top) : round(bottom), round(left) : round(right)]
        ground = np.median(drawn)
        assert (ground > 250) if scheme == "light" else (ground < 40)
        assert 0.01 < (abs(drawn - ground) > 80).mean() < 0.3  # lines and letters, neither none nor a blot


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, where the environment names its axe.min.js."""
    path = os.environ.get("COMPRESS_AXE")
    if not path:
        pytest.skip("COMPRESS_AXE does not name an axe.min.js (npm install axe-core)")
    return Path(path).read_text()


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_axe_finds_nothing(browser: Browser, page: Path, axe: str, width: int, scheme: str) -> None:
    browser.open(page, width, scheme)
    found = browser.axe(axe)
    assert [(each["id"], each["impact"]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_axe_would_find_something(browser: Browser, page: Path, axe: str, tmp_path: Path) -> None:
    worse = tmp_path / "worse.html"
    worse.write_text(
        page.read_text().replace(' lang="en"', "").replace('role="img" aria-label', 'role="img" data-label')
    )
    browser.open(worse, 1600)
    found = {each["id"] for each in browser.axe(axe)["violations"]}
    assert {"html-has-lang", "role-img-alt"} <= found


@pytest.mark.parametrize("width", [400, 1600])
def test_a_screen_reader_finds_tables_plots_and_headings(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    nodes = [each for each in browser.call("Accessibility.getFullAXTree")["nodes"] if not each["ignored"]]
    named = [(each["role"]["value"], each.get("name", {}).get("value", "")) for each in nodes]
    assert ("table", "Baseline and candidates") in named
    assert ("table", "Parity, each hop with the one before") in named
    assert ("link", "Skip to the content") in named
    assert len([role for role, _ in named if role == "rowheader"]) > 20
    plots = [name for role, name in named if role in ("image", "img")]
    assert len(plots) == 3
    assert all(plots)
    assert [name for role, name in named if role == "heading"][:3] == [
        "resnet20, compressed",
        "Comparison",
        "What accuracy costs",
    ]
