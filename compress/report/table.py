"""A table as a value, and the same table in Markdown and in a terminal; the HTML page draws it too."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Group

Tone = Literal["", "good", "bad", "unsure"]
NOTHING = "–"
"""What stands for a number that was not measured."""
STYLES: dict[Tone, str] = {"": "", "good": "green", "bad": "bold red", "unsure": "yellow"}


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, a smaller second line, and whether it is good news; the words alone carry the meaning."""

    text: str
    note: str = ""
    tone: Tone = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.note})" if self.note and self.text else self.text or self.note


@dataclass(frozen=True)
class Column:
    """A column's title, and whether it holds numbers, which stand at the right."""

    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells under titled columns; the first cell of a row says what the row is about."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(caption: str, titles: Iterable[str], rows: Iterable[Sequence[Cell | str]]) -> Table:
    """A table without the columns in which no row says anything; a title ending in "|" is of a column of words."""
    columns = [Column(title.rstrip("|"), not title.endswith("|")) for title in titles]
    given = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    cells = [[Cell(printable(cell.text), printable(cell.note), cell.tone) for cell in row] for row in given]
    kept = [place for place in range(len(columns)) if not cells or any(str(row[place]) for row in cells)]
    return Table(
        printable(caption),
        tuple(columns[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in cells),
    )


def printable(text: str) -> str:
    """Text that cannot steer a terminal or break an XML file: control characters shown as what they are not."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def markdown(content: Table) -> str:
    """The table in GitHub's Markdown, nothing in it read as markup."""
    nones = [NOTHING if column.numeric else "" for column in content.columns]
    lines = [
        f"**{escape(content.caption)}**",
        "",
        _line(escape(column.title) for column in content.columns),
        _line("---:" if column.numeric else ":---" for column in content.columns),
        *(_line(escape(str(cell)) or none for cell, none in zip(row, nones, strict=True)) for row in content.rows),
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text from a file or a model as Markdown that shows it as it is, on one line."""
    return "".join(
        f"\\{letter}" if letter in "\\`*_{}[]<>#|~!$&" else letter for letter in " ".join(printable(text).split())
    )


def fenced(text: str, language: str = "") -> str:
    """Text as a Markdown code block, with a fence longer than any in it."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def terminal(content: Table, across: int = 4) -> "Group":
    """The table for a terminal, in parts of so many columns where it has many; colours and width are the console's."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    width = len(content.columns)
    starts = range(1, width, across) if width > across + 2 else [1]
    drawn = []
    for start in starts:
        places = (0, *range(start, min(start + across, width) if len(starts) > 1 else width))
        part = RichTable(
            title=Text(content.caption) if start == 1 else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for place in places:
            column = content.columns[place]
            side: Literal["left", "right"] = "right" if column.numeric else "left"
            part.add_column(Text(column.title), justify=side, overflow="fold", no_wrap=place == 0)
        for row in content.rows:
            part.add_row(*(Text(_lines(row[at], content.columns[at], at == 0), STYLES[row[at].tone]) for at in places))
        drawn.append(part)
    return Group(*drawn)


def _lines(cell: Cell, column: Column, first: bool) -> str:
    """A cell's text over its note; the first column, which is never squeezed, is kept narrow."""
    lines = [cell.text or (NOTHING if column.numeric else ""), cell.note]
    return "\n".join(textwrap.fill(line, 24) if first else line for line in lines if line)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
