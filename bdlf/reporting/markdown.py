"""Writes blocks as Markdown that also reads well in a terminal: columns line up, and no line is wider than WIDTH."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from bdlf.reporting.block import Block
from bdlf.reporting.columns import MARK, Column, Section, notes, sections
from bdlf.reporting.fitting import Legend, packed

WIDTH = 100
_KEYS = 60
"""How many characters wide the keys may be. The widest figure, a difference with its interval, fits beside them."""


def text(blocks: Sequence[Block]) -> str:
    """All blocks, each with its underlined title, its tables, a legend of the shortened texts, and its notes."""
    return "\n".join(_block(block) for block in blocks)


def _block(block: Block) -> str:
    title = _wrapped(block.title)
    lines = [*title, "-" * max(map(len, title)), ""]
    legend = Legend(24)
    for section in _joined(sections(block)):
        lines += [*_wrapped(f"{section.caption}:"), ""] if section.caption else []
        keys = [_escaped(key) for key in legend.keys(section.keys, _KEYS, _width)]
        columns = [_escaped(legend.column(column)) for column in section.columns]
        for part in packed(keys, columns, WIDTH - 1, _width):
            lines += [*_table([*keys, *part]), ""]
    lines += [line for number, text in legend.lines.items() for line in [*_wrapped(f"{number} {text}"), ""]]
    lines += [line for note in notes(block) for line in _wrapped(note, "- ")]
    return "\n".join([*lines, ""])


def _joined(found: list[Section]) -> list[Section]:
    """The sections, with the figures and the differences joined into one section if they fit into one table."""
    if len(found) > 1 and found[1].columns[-1].group == "diff.":
        one = Section("", found[0].keys, (*found[0].columns, *found[1].columns))
        if sum(map(_width, (*one.keys, *one.columns))) < WIDTH:
            return [one, *found[2:]]
    return found


def _texts(column: Column) -> list[str]:
    """The heading and the cells as they are written. A cell without the sign has spaces in its place."""
    signed = any(text.endswith(MARK) for text in column.texts)
    cells = [f"**{text}**" if line in column.bold else text for line, text in enumerate(column.texts)]
    cells = [text + " " * len(MARK) if signed and not text.endswith(MARK) else text for text in cells]
    return [column.full, *cells]


def _width(column: Column) -> int:
    """How many characters wide the column is in a table, with the bar and the spaces before it."""
    return max(map(len, _texts(_escaped(column)))) + 3


def _table(columns: Sequence[Column]) -> list[str]:
    def padded(text: str, width: int, right: bool) -> str:
        space = " " * (width - len(text))
        return space + text if right else text + space

    written = []
    for column in columns:
        head, *cells = _texts(column)
        width = max(3, *map(len, [head, *cells]))
        rule = "-" * (width - 1) + (":" if column.figure else "-")
        written.append(
            [padded(head, width, column.figure), rule, *(padded(cell, width, column.figure) for cell in cells)]
        )
    return ["| " + " | ".join(cells) + " |" for cells in zip(*written, strict=True)]


def _escaped(column: Column) -> Column:
    if column.figure:
        return column
    return replace(column, head=_escape(column.head), texts=tuple(map(_escape, column.texts)))


def _escape(text: str, more: str = "[]|") -> str:
    """Markdown that shows `text` unchanged. An underscore inside a word needs no escape.

    `more` are further characters that are escaped.
    """
    text = re.sub(rf"([\\`*<~{re.escape(more)}])", r"\\\1", text)
    text = re.sub(r"&(?=#?\w+;)", r"\\&", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def _wrapped(text: str, bullet: str = "") -> list[str]:
    """The lines of a paragraph, or of an item of a list if `bullet` is given.

    A line that would begin another list, a quotation or a heading is escaped.
    """
    lines = textwrap.wrap(_escape(text, more=""), WIDTH - 1 - len(bullet), break_on_hyphens=False)
    lines = [re.sub(r"^(\d*)([-+>#.)])(?=\s|$)", r"\1\\\2", line) for line in lines]
    return [(" " * len(bullet) if place else bullet) + line for place, line in enumerate(lines)]
