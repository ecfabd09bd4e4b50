"""Record what axe-core says of a report's page in headless Chromium.

    npm install --prefix /tmp/axe axe-core
    python benchmarks/accessibility.py --axe /tmp/axe/node_modules/axe-core/axe.min.js

Writes `reports/accessibility.json` and `reports/accessibility.md`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress import storage
from compress.report.html import html
from compress.report.report import from_recordings

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "report")]
VIEWS = [(width, scheme) for width in (400, 1600) for scheme in ("light", "dark")]


def findings(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What axe found, without the page's own text."""
    return [
        {"rule": each["id"], "impact": each["impact"], "help": each["help"], "elements": len(each["nodes"])}
        for each in found
    ]


def look(source: str) -> dict[str, Any]:
    """Open a page that has every section in each view, and ask axe of it."""
    import recorded
    from chromium import chromium

    views = []
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        page = Path(temporary) / "report.html"
        page.write_text(html(from_recordings([recorded.run(Path(temporary))])))
        product = browser.call("Browser.getVersion")["product"]
        for width, scheme in VIEWS:
            browser.open(page, width, scheme)
            found = browser.axe(source)
            views.append(
                {
                    "width": width, "scheme": scheme, "rules_passed": len(found["passes"]),
                    "violations": findings(found["violations"]), "undecided": findings(found["incomplete"]),
                }
            )  # fmt: skip
    return {"axe": found["testEngine"]["version"], "browser": product, "views": views}


def markdown(found: dict[str, Any]) -> str:
    """The record as a table."""
    lines = [
        "# Accessibility of a report's page",
        "",
        f"axe-core {found['axe']} in {found['browser']}, on a page with every section; made by `benchmarks/accessibility.py`.",
        "",
        "| width, px | scheme | rules passed | violations | left to people |",
        "| --- | --- | --- | --- | --- |",
    ]
    for view in found["views"]:
        named = [
            ", ".join(f"{each['rule']} ({each['impact']}, {each['elements']} elements)" for each in view[kind])
            or "none"
            for kind in ("violations", "undecided")
        ]
        lines.append(f"| {view['width']} | {view['scheme']} | {view['rules_passed']} | {named[0]} | {named[1]} |")
    lines += [
        "",
        "Left to people is the contrast of text inside the plots, which axe cannot see: every such text has the page's ink, "
        "whose contrast with the ground `tests/report/test_report_html.py` computes.",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Look, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axe", type=Path, required=True, help="the axe.min.js of the npm package axe-core")
    found = look(parser.parse_args().axe.read_text())
    storage.write_text(ROOT / "reports" / "accessibility.json", json.dumps(found, indent=1) + "\n")
    storage.write_text(ROOT / "reports" / "accessibility.md", markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
