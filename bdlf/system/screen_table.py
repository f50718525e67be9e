"""Prints tables and lines on terminals of any width without cutting a figure."""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from collections.abc import Collection, Sequence

from bdlf.system.screen import encodable

_WIDTH_OF_FILES = 150  # columns of a table that goes to a file or a pipe, unless it needs more
_LEAST_OF_TEXT = 16  # columns that a column of text gets at least
_BORDER = 3  # columns that the border takes for each column of a table
_BORDERS = ("┏━┳┓", "┃", "┡━╇┩", "│", "└─┴┘")  # above, beside and below the headings, beside and below the rows
_BORDERS_IN_ASCII = ("+--+", "|", "|-+|", "|", "+--+")


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    figures: Collection[int] = (),
    text: Collection[int] = (),
    dispensable: Collection[int] = (),
) -> None:
    """Print a table that fits the terminal.

    - `figures`: the numbers of the columns whose cells are aligned to the right.
    - `text`: the columns whose cells may be broken into several lines. All other cells stay whole.
    - `dispensable`: the columns that are left out where the terminal is too narrow for all.

    Where the terminal is too narrow even so, each row becomes a paragraph of headings and cells.
    """
    table = [[encodable(cell, _encoding()) for cell in row] for row in (headings, *rows)]
    natural = [max(_columns_of(row[column]) for row in table) for column in range(len(headings))]
    least = [min(width, _LEAST_OF_TEXT) if column in text else width for column, width in enumerate(natural)]

    def needed(columns: Collection[int]) -> int:
        return sum(least[column] + _BORDER for column in columns) + 1

    shown = list(range(len(headings)))
    room = _terminal_width() or max(_WIDTH_OF_FILES, needed(shown))
    if needed(shown) > room:
        shown = [column for column in shown if column not in dispensable]
    if title:
        print_line(title)
    if needed(shown) > room:
        _print_paragraphs([[row[column] for column in shown] for row in table], room)
        return
    widths = {column: natural[column] for column in shown}
    while sum(widths.values()) + _BORDER * len(shown) + 1 > room:
        widest = max((column for column in shown if widths[column] > least[column]), key=lambda column: widths[column])
        widths[widest] -= 1
    _print_bordered([[row[column] for column in shown] for row in table], widths, figures)


def print_line(line: str) -> None:
    """Print a line; on a terminal it is broken between words to fit. A file or a pipe gets it whole."""
    width = _terminal_width()
    print("\n".join(_broken(line, width)) if width else line)


def _print_bordered(table: Sequence[Sequence[str]], widths: dict[int, int], figures: Collection[int]) -> None:
    """Print rows of cells, the first of them headings, with a border; `widths` holds the width of each column."""
    plain = encodable("".join(_BORDERS), _encoding()) != "".join(_BORDERS)
    top, beside_headings, below_headings, beside_rows, bottom = _BORDERS_IN_ASCII if plain else _BORDERS

    def print_rule(signs: str) -> None:
        left, line, cross, right = tuple(signs)
        print(left + cross.join(line * (width + 2) for width in widths.values()) + right)

    print_rule(top)
    for number, row in enumerate(table):
        bar = beside_rows if number else beside_headings
        cells = [_broken(cell, width) for cell, width in zip(row, widths.values(), strict=True)]
        for height in range(max(map(len, cells))):
            parts = []
            for (column, width), lines in zip(widths.items(), cells, strict=True):
                part = lines[height] if height < len(lines) else ""
                space = " " * (width - _columns_of(part))
                parts.append(space + part if column in figures else part + space)
            print(f"{bar} {f' {bar} '.join(parts)} {bar}")
        if number == 0:
            print_rule(below_headings)
    print_rule(bottom)


def _print_paragraphs(table: Sequence[Sequence[str]], width: int) -> None:
    """Print each row as pairs of heading and cell. A cell is broken only where it is longer than a line."""
    headings, *rows = table
    for row in rows:
        lines = [""]
        for heading, cell in zip(headings, row, strict=True):
            item = f"{heading} {cell}".strip() if cell else ""
            if item and lines[-1].strip() and _columns_of(lines[-1]) + 2 + _columns_of(item) <= width:
                lines[-1] += f"  {item}"
            elif item:
                indent = "  " if lines[-1] else ""
                lines += [indent + line for line in _broken(item, max(1, width - len(indent)))]
        print("\n".join(lines[1:]))


def _broken(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns, broken between words, and within words longer than a line."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.findall(r"\s*\S+", paragraph):
            if line and _columns_of(line + word) > width:
                lines.append(line)
                line = word.lstrip()
            else:
                line += word
            while _columns_of(line) > width and len(line) > 1:
                fits = max((end for end in range(1, len(line)) if _columns_of(line[:end]) <= width), default=1)
                lines.append(line[:fits])
                line = line[fits:]
        lines.append(line)
    return lines


def _columns_of(text: str) -> int:
    """How many columns of a terminal `text` takes: two for each wide (East Asian) sign, none for a combining one."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(unicodedata.combining(sign) > 0 for sign in text)


def _terminal_width() -> int | None:
    """The columns of the terminal to which standard output goes; None if it goes to a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _encoding() -> str:
    return sys.stdout.encoding or "utf-8"
