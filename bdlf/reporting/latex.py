"""Writes blocks as a LaTeX file. pdflatex compiles it alone, and a paper that has booktabs can take it in by input."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby

from bdlf.reporting.block import Block
from bdlf.reporting.columns import CHECK, DASH, MARK, Column, notes, sections
from bdlf.reporting.fitting import Legend, packed

_BEGIN = r"""% Compile this file alone, or \input it in a paper that has \usepackage{booktabs}.
% A table* is as wide as the page, also in a paper of two columns.
\expandafter\ifx\csname @nodocument\endcsname\relax\else % true before \begin{document}, when the file stands alone
\documentclass{article}
\usepackage{booktabs}
\extrafloats{500}
\def\endofthetables{\end{document}}
\begin{document}
\fi
\providecommand{\checkmark}{\ensuremath{\surd}}
"""
_END = "\n\\csname endofthetables\\endcsname\n"  # ends the document of the file alone; in a paper it does nothing
_PAGE = 345.0
"""The greatest width of a table in points: the \\textwidth of an article at 10 points."""
_KEYS = 200.0
"""The greatest width of the key columns together, in points."""
_LINES = 44
"""Lines on a page. LaTeX breaks no float over pages, so the rows that do not fit go to further floats."""
_SIGNS = {
    **{c: f"\\{c}" for c in "&%#_{}"},
    "$": r"$\mathdollar$",  # \$ needs a font that a small installation of LaTeX would have to make first
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\symbol{96}",
    '"': "''",
    CHECK: r"\checkmark{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "µ": r"$\mu$",
    "·": r"$\cdot$",
    "…": r"\dots{}",
    "–": "--",
    "—": "---",
}


def text(blocks: Sequence[Block]) -> str:
    """All blocks in one file; each section of a block is in one or more floats.

    The notes of a block stand below its first float. The whole text of what is shortened stands below the float that
    uses it first.
    """
    return _BEGIN + "\n".join(table for block in blocks for table in _block(block)) + _END


def _block(block: Block) -> list[str]:
    legend, told = Legend(24), set[str]()
    tables: list[str] = []
    for section in sections(block):
        keys = legend.keys(section.keys, _KEYS, _width)
        columns = [legend.column(column) for column in section.columns]
        parts = [[*keys, *part] for part in packed(keys, columns, _PAGE, _width)]
        caption = ": ".join(filter(None, (block.title, section.caption)))
        start, rows = 0, len(keys[0].texts)
        while start < rows:
            below = [] if tables else notes(block)
            room = _LINES - 4 * len(parts) - sum(map(_height, below))
            end, lines = start, list[str]()
            while end < rows and (end == start or room >= len(parts)):
                whole = _whole([*keys, *columns], end, legend, told)
                room -= len(parts) + sum(map(_height, whole))
                lines += whole
                end += 1
            tabulars = [_tabular(part, slice(start, end)) for part in parts]
            tables.append(_float(caption + (" (continued)" if start else ""), tabulars, [*lines, *below]))
            start = end
    return tables


def _whole(columns: Sequence[Column], line: int, legend: Legend, told: set[str]) -> list[str]:
    """The lines that give the whole texts of what is shortened in line `line` and in the headings.

    `told` holds the numbers whose whole text stands further above; they are left out, and the new ones are added to it.
    """
    texts = [text for column in columns if not column.figure for text in (column.head, column.texts[line])]
    numbers = [number for text in texts for number in re.findall(r"\(\d+\)", text) if number in legend.lines]
    fresh = [number for number in dict.fromkeys(numbers) if number not in told]
    told.update(fresh)
    return [f"{number} {legend.lines[number]}" for number in fresh]


def _height(sentence: str) -> int:
    """About how many lines a sentence takes below a table."""
    return 1 + len(sentence) // 85


def _float(caption: str, tabulars: Sequence[str], below: Sequence[str]) -> str:
    lines = [r"\begin{table*}", rf"\caption{{{_prose(caption)}}}", r"\centering\small\setlength{\tabcolsep}{3pt}"]
    lines.append("\n\n\\medskip\n".join(tabulars))
    if below:
        prose = "\\par\n".join(map(_prose, below))
        lines.append(f"\n\\medskip\n\\parbox{{\\textwidth}}{{\\footnotesize\\raggedright\n{prose}}}")
    return "\n".join([*lines, r"\end{table*}", ""])


def _tabular(columns: Sequence[Column], lines: slice) -> str:
    rows = zip(*([_cell(column, line) for line in range(len(column.texts))][lines] for column in columns), strict=True)
    form = "".join(map(_alignment, columns))
    body = [_row(row) for row in rows]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{form}}}",
            r"\toprule",
            *_heads(columns),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _heads(columns: Sequence[Column]) -> list[str]:
    """The lines of the headings: above them a line of their groups, if there are any.

    The group of the differences is left out, because the caption names it.
    """
    spans = [
        (group, len(list(some)))
        for group, some in groupby(columns, key=lambda column: column.group.replace("diff.", ""))
    ]
    heads = _row([_escaped(column.head) for column in columns])
    if not any(group for group, _ in spans):
        return [heads]
    groups, rules, place = [], [], 1
    for group, count in spans:
        groups.append(rf"\multicolumn{{{count}}}{{c}}{{{_escaped(group)}}}")
        rules += [rf"\cmidrule(lr){{{place}-{place + count - 1}}}"] if group else []
        place += count
    return [_row(groups), "".join(rules), heads]


def _row(cells: Sequence[str]) -> str:
    """A line of a table.

    LaTeX would read `[` or `*` at its beginning as an argument of the line before; an empty group prevents that.
    """
    line = " & ".join(cells)
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"


def _cell(column: Column, line: int) -> str:
    text = column.texts[line]
    if text == DASH:
        return "--"
    if not column.figure:
        return _escaped(text)
    written = _escaped(text.removesuffix(MARK)).replace("-", "$-$")
    written = rf"\textbf{{{written}}}" if line in column.bold else written
    return written + (r"\rlap{$^{*}$}" if text.endswith(MARK) else "")


def _alignment(column: Column) -> str:
    if column.figure:
        return "r"
    only_checks = {*column.texts} <= {CHECK, ""}
    return "c" if only_checks else "l"


def _width(column: Column) -> float:
    """About how wide a column is with the space beside it, in points.

    Letters count as they are wide in Computer Modern at 9 points, rounded up.
    """
    texts = [column.head, *column.texts]
    return max(sum(7.8 if letter.isupper() or letter in "mw%±@" else 4.8 for letter in text) for text in texts) + 6


def _prose(text: str) -> str:
    """A sentence in which LaTeX may break long words, such as paths and names of runs."""
    words = ([word[start : start + 12] for start in range(0, len(word), 12)] for word in text.split())
    return " ".join(
        "".join(map(_escaped, parts)) if len(parts) < 3 else r"\allowbreak{}".join(map(_escaped, parts))
        for parts in words
    )


def _escaped(text: str) -> str:
    """LaTeX that prints `text`. A letter that pdflatex cannot print without further packages becomes `[U+...]`."""
    return re.sub("-(?=-)", "-{}", "".join(map(_letter, unicodedata.normalize("NFC", text))))


def _letter(letter: str) -> str:
    if letter in _SIGNS or letter.isascii():
        return _SIGNS.get(letter, letter)
    plain = letter.isalpha() and ord(letter) < 256 and unicodedata.normalize("NFD", letter)[0].isascii()
    return letter if plain or letter in "ßæøÆØ" else f"[U+{ord(letter):04X}]"
