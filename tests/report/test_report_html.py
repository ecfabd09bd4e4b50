import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import recorded
from test_report_rendering import HOSTILE, hostile

from compress.report import plots
from compress.report import report as reports
from compress.report.figures import Interval
from compress.report.html import html
from compress.report.report import Report
from compress.train.diagnosis import explained

VOID = {"meta", "link", "br", "img", "input", "hr", "base"}


class Reader(HTMLParser):
    """Every element of a page with its attributes, and the text inside each open element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reports.from_recordings([recorded.run(tmp_path_factory.mktemp("run"))])


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return html(report)


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    reader = Reader(page)
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in reader.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "xlink:href", "src"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in page
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", page))
    [policy] = [each["content"] for tag, each in reader.elements if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_a_hostile_name_is_only_text(tmp_path: Path) -> None:
    reader = Reader(html(hostile(tmp_path)))
    assert "script" not in {tag for tag, _ in reader.elements}
    said = "".join(reader.text)
    assert said.count('<script>alert("1")</script>') >= 8
    assert "{{ 7*7 }}" in said
    assert "\x1b" not in said
    assert HOSTILE.split("\x1b")[0] in said


def test_references_inside_the_page_lead_somewhere(page: str) -> None:
    reader = Reader(page)
    ids = [str(each["id"]) for _, each in reader.elements if "id" in each]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.elements:
        for name in ("href", "xlink:href"):
            if target := attributes.get(name):
                assert target[1:] in ids
        if label := attributes.get("aria-labelledby"):
            assert label in ids
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(ids)


def test_the_sections_stand_in_their_order(page: str) -> None:
    reader = Reader(page)
    ids = [str(each["id"]) for tag, each in reader.elements if tag == "h2"]
    assert ids == ["comparison", "plots", "parity", "layers", "curves", "notes", "recipe", "environment", "sources"]
    assert page.index('class="verdict"') < page.index("<main")


def test_every_table_can_be_read_aloud(page: str) -> None:
    reader = Reader(page)
    tables = [each for tag, each in reader.elements if tag == "table"]
    assert len([tag for tag, _ in reader.elements if tag == "caption"]) == len(tables)
    assert all(each.get("scope") in ("col", "row") for tag, each in reader.elements if tag == "th")
    figures = [each for _, each in reader.elements if each.get("role") == "img"]
    assert len(figures) == len([tag for tag, _ in reader.elements if tag == "figure"]) == 3
    assert all(len(each["aria-label"] or "") > 50 for each in figures)
    assert ("html", {"lang": "en"}) in reader.elements
    assert any(each.get("class") == "skip" and each.get("href") == "#content" for _, each in reader.elements)


def test_every_number_names_its_recording(page: str, report: Report) -> None:
    rows = page[page.index("Every number and where it is from: ") :].count("<tr>") - 1
    assert rows == sum(len(candidate.samples) for candidate in report.candidates)
    assert all(source.digest in page for source in report.sources)
    assert all(candidate.subject.digest in page for candidate in report.candidates)
    assert reports.digest(report) in page


def test_curves_of_weights_that_have_seen_the_validation_images_are_not_judged(page: str) -> None:
    assert "The weights had seen the validation images, so these curves cannot show over-fitting." in page
    assert "under-fitting" not in page.lower()


def test_curves_of_new_images_are_judged(tmp_path: Path) -> None:
    [curve] = recorded.pruned().curves
    fresh = recorded.pruned(curves=(type(curve)(curve.step, curve.figures),))
    text = html(reports.from_recordings([recorded.run(tmp_path, recorded.entry(), fresh)]))
    assert f"{escape(explained(curve.figures)[-1])[1:]}.</figcaption>" in text


def test_a_page_of_a_baseline_alone_has_no_plots(tmp_path: Path) -> None:
    alone = html(reports.from_recordings([recorded.write(tmp_path / "m", recorded.entry())]))
    assert "<figure" not in alone
    assert "there is no candidate to set against it" in alone


def test_forty_candidates_of_a_thousand_samples_stay_below_a_megabyte_and_a_half(tmp_path: Path) -> None:
    assert 300_000 < len(html(recorded.forty(tmp_path)).encode()) < 1_500_000


def test_plots_take_their_colours_from_the_page(page: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert not re.findall(r"#[0-9a-fA-F]{6}\b", svg)
        assert "<text" in svg
        assert all("fill: var(--ink)" in text for text in re.findall(r"<text[^>]*>", svg))


def test_a_plot_is_the_same_bytes_whatever_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    points = [plots.Point(0, 0.02, 91.0, Interval(90, 92)), plots.Point(1, 0.01, 90.0, None)]
    first = plots.trade("latency", points, "latency", "s")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "#ff0000")
    assert plots.trade("latency", points, "latency", "s") == first
    assert plots.trade("size", points, "latency", "s") != first  # its identifiers are its own


def test_a_wide_range_of_costs_gets_a_logarithmic_axis() -> None:
    near = [plots.Point(each, 1.0 + each, 90.0 + each, None) for each in range(3)]
    far = [plots.Point(each, 10.0 ** (each * 2 - 4), 90.0 + each, None) for each in range(3)]
    assert "100 µs" in plots.trade("t", far, "latency", "s")
    assert "2 s" in plots.trade("t", near, "latency", "s")


def luminance(colour: str) -> float:
    """Relative luminance, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    digits = colour.lstrip("#")
    digits = "".join(each * 2 for each in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_from_its_ground_in_both_schemes(page: str, scheme: int) -> None:
    """WCAG 2.2 AA: a contrast of 4.5."""
    colours = dict(re.findall(r"--(\w+):(#\w+)", re.findall(r":root\{([^}]*)\}", page)[scheme]))
    for ground in ("paper", "raised"):
        for text in ("ink", "quiet", "accent", "second", "good", "bad", "unsure"):
            bright, dark = sorted((luminance(colours[ground]), luminance(colours[text])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
