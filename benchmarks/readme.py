"""Put the tables of the recorded reports into README.md.

python benchmarks/readme.py
"""

import re
from pathlib import Path

from compress import storage
from compress.report import contents, table
from compress.report.comparison import rows
from compress.report.report import read

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"(<!-- table: (?P<report>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The page with each marked table drawn from its report."""
    return TABLE.sub(lambda found: f"{found[1]}\n{drawn(ROOT / found['report'])}\n{found[3]}", text)


def drawn(report: Path) -> str:
    """A report's first table, as Markdown."""
    return table.markdown(contents.comparison(rows(read(report))))


if __name__ == "__main__":
    readme = ROOT / "README.md"
    storage.write_text(readme, filled(readme.read_text()))
