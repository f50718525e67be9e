"""Tables on a screen of any width: no figure is ever cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_OF_FILES = 150  # columns of a table that goes to a file or a pipe, where it does not need more
_LEAST_OF_TEXT = 16  # columns that a column of text gets at least
_BORDER = 3  # columns of a table's border for each of its columns


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    figures: Collection[int] = (),
    text: Collection[int] = (),
    dispensable: Collection[int] = (),
) -> None:
    """Print a table as wide as the terminal allows.

    - `figures`: the numbers of the columns that stand at the right.
    - `text`: those whose cells may go on in the next line. Every other cell stays whole.
    - `dispensable`: those that are left out first where the terminal is too narrow.

    Where the terminal is still too narrow, each row becomes a paragraph of headings and cells.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    columns = list(range(len(headings)))
    if not console.is_terminal:
        console = Console(
            markup=False, highlight=False, width=max(_WIDTH_OF_FILES, _needed(columns, headings, rows, text))
        )
    if _needed(columns, headings, rows, text) > console.width:
        columns = [column for column in columns if column not in dispensable]
    if _needed(columns, headings, rows, text) > console.width:
        _print_paragraphs(console, columns, headings, rows, title)
        return
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        side = "right" if column in figures else "left"
        folds = column in text
        table.add_column(headings[column], justify=side, no_wrap=not folds, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    console.print(table)


def _needed(
    columns: Sequence[int], headings: Sequence[str], rows: Sequence[Sequence[str]], text: Collection[int]
) -> int:
    from rich.cells import cell_len

    widths = {column: max(map(cell_len, [headings[column], *(row[column] for row in rows)])) for column in columns}
    least = (min(width, _LEAST_OF_TEXT) if column in text else width for column, width in widths.items())
    return sum(least) + _BORDER * len(columns) + 1


def _print_paragraphs(
    console: Console, columns: Sequence[int], headings: Sequence[str], rows: Sequence[Sequence[str]], title: str
) -> None:
    """Line breaks stand between cells, and within a cell only where it is longer than a line."""
    from rich.cells import cell_len
    from rich.text import Text

    def broken(text: str, width: int) -> list[str]:
        return [line.plain.rstrip() for line in Text(text).wrap(console, max(1, width))]

    width = console.width
    if title:
        print("\n".join(broken(title, width)))
    for row in rows:
        lines = [""]
        for column in columns:
            item = f"{headings[column]} {row[column]}".strip() if row[column] else ""
            if item and lines[-1].strip() and cell_len(lines[-1]) + 2 + cell_len(item) <= width:
                lines[-1] += f"  {item}"
            elif item:
                indent = "  " if lines[-1] else ""
                lines += [indent + line for line in broken(item, width - len(indent))]
        print("\n".join(lines[1:]))
