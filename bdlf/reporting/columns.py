"""Turns a block into columns of texts, in sections, and into notes. Every format but CSV writes these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bdlf.reporting.block import Block
from bdlf.reporting.published import SAME, published

DASH, CHECK, MARK = "-", "✓", " *"
LEVEL = 0.05
"""MARK stands beside a difference whose adjusted p-value is below this level."""
_FIGURES = {"rank1": "rank-1", "mAP": "mAP", "mINP": "mINP"}
_PRINTED = {"rank1": "R-1", "mAP": "mAP"}
"""The figures that the published tables print, with their headings."""
_COSTS = {  # from the name of a cost to its group, heading, scale and digits
    "train_seconds": ("", "train s", 1, 0),
    "images_per_second": ("", "images/s", 1, 0),
    "peak_memory_gib": ("", "peak GiB", 1, 2),
    "parameters": ("", "M param.", 1e-6, 1),
    "train_gflops": ("GFLOP", "train", 1, 2),
    "inference_gflops": ("GFLOP", "test", 1, 2),
}


@dataclass(frozen=True)
class Column:
    """A column of texts with its heading."""

    head: str
    texts: tuple[str, ...]
    group: str = ""
    """A heading that this column shares with its neighbours of the same group, if a format has two lines of them."""
    bold: frozenset[int] = frozenset()
    """The numbers of the lines that are in bold."""
    figure: bool = True
    """Whether the texts are numbers, which are aligned at the right."""

    @property
    def full(self) -> str:
        """The group and the heading as one text, for a format that has a single line of headings."""
        return f"{self.group} {self.head}".strip()


@dataclass(frozen=True)
class Section:
    """Columns that belong together, beside the key columns. `caption` names them; it is '' for the figures."""

    caption: str
    keys: tuple[Column, ...]
    columns: tuple[Column, ...]


def cells(block: Block) -> pd.DataFrame:
    """The block as a frame of texts for a notebook: the key columns, then the columns of all sections."""
    table = block.table
    columns = [*_keys(block), _runs(table), *_figures(block), *_differences(block), *_published(table), *_costs(table)]
    texts: pd.DataFrame = pd.DataFrame({column.full: list(column.texts) for column in columns})
    return texts


def sections(block: Block) -> list[Section]:
    """The block in up to four sections: figures, differences to the reference row, published numbers, and costs.

    A section that has no value is left out. The lines of published methods stand only among the published numbers.
    """
    table, keys, runs = block.table, _keys(block), _runs(block.table)
    own = _own(table)
    ours = [_plain(table, figure, "ours") for figure in _PRINTED if figure in table]
    beside = [line for line in range(len(table)) if _present(table, "paper_rank1")[line]]
    found = [
        ("", [runs, *_figures(block)], own),
        (f"Difference to {block.reference}, in points, with its 95 % interval", _differences(block), own),
        ("Beside published numbers" if own else "Published numbers", [runs, *ours, *_published(table)], beside),
        ("Costs (GFLOP per image, M: million)", _costs(table), own),
    ]
    known = [(caption, columns, lines) for caption, columns, lines in found if columns and lines]
    return [
        Section(caption, tuple(_lines(key, lines) for key in keys), tuple(_lines(column, lines) for column in columns))
        for caption, columns, lines in known
    ]


def notes(block: Block) -> list[str]:
    """The notes of the block, followed by explanations of the sign and the bold type, if the block has them."""
    found = list(block.notes)
    if any(MARK in text for column in _differences(block) for text in column.texts):
        found.append(f"The sign{MARK} stands beside a difference whose p-value, adjusted by Holm, is below {LEVEL}.")
    if any(column.bold for column in _figures(block)):
        found.append(
            f"Bold is the highest figure of a column where the comparison with {block.reference} supports it: its own "
            f"difference to {block.reference} carries the sign{MARK}, or it is {block.reference} and the difference of "
            "the second highest does. The other rows are not compared with each other."
        )
    protocols = _protocols(block.table)
    if len(set(protocols)) == 1 and protocols[0] != SAME:
        found.append(
            f"No difference to the published numbers is formed, since their protocol is not ours: {protocols[0]}."
        )
    if SAME in protocols:
        found.append(
            "The published protocol is the same as far as it is known: the paper does not say of which feature, which "
            "flip averaging and which epoch its numbers are."
        )
    return found


def _lines(column: Column, lines: Sequence[int]) -> Column:
    bold = frozenset(place for place, line in enumerate(lines) if line in column.bold)
    return replace(column, texts=tuple(column.texts[line] for line in lines), bold=bold)


def _keys(block: Block) -> list[Column]:
    return [Column(key, tuple(map(_key, block.table[key])), figure=False) for key in block.keys]


def _key(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return CHECK if value else ""
    return DASH if value is None or value is pd.NA or value != value else " ".join(str(value).split())


def _runs(table: pd.DataFrame) -> Column:
    head = "runs" if _own(table) else "venue"
    return Column(head, tuple(map(_key, table["runs"])), figure=False)


def _own(table: pd.DataFrame) -> list[int]:
    """The lines that are of runs, and not of published methods."""
    return [line for line, text in enumerate(table["runs"]) if text not in set(published()["venue"])]


def _figures(block: Block) -> list[Column]:
    table = block.table
    found = []
    for name, words in _FIGURES.items():
        if name in table:
            spread = table.get(f"{name}_std", pd.Series(np.nan, table.index))
            texts = tuple(
                _number(mean, 1) + (f" ± {std:.1f}" if pd.notna(std) else "")
                for mean, std in zip(table[name], spread, strict=True)
            )
            found.append(Column(words, texts, bold=_best(block, name)))
    return found


def _best(block: Block, name: str) -> frozenset[int]:
    """The line with the highest `name`, if the comparison with the reference row supports that it is the best.

    If the highest is another row, its own difference to the reference must be significant. If the highest is the
    reference row, the difference of the second highest must be.
    """
    columns = [name, f"{name}_difference", f"{name}_p"]
    table = block.table.reset_index(drop=True).reindex(columns=["row", *columns])
    numbers = table[columns].apply(pd.to_numeric).sort_values(name, ascending=False, kind="stable")
    if numbers[name].count() < 2:
        return frozenset()
    first, second = numbers.index[:2]
    if table["row"][first] == block.reference:
        lead, p = -numbers[f"{name}_difference"][second], numbers[f"{name}_p"][second]
    else:
        lead, p = numbers[f"{name}_difference"][first], numbers[f"{name}_p"][first]
    return frozenset([first] if lead > 0 and p < LEVEL else [])


def _differences(block: Block) -> list[Column]:
    table = block.table
    found = []
    for name, words in _FIGURES.items():
        if any(_present(table, f"{name}_difference")):
            parts = [f"{name}_{part}" for part in ("difference", "low", "high", "p")]
            numbers = table.reindex(columns=parts).apply(pd.to_numeric)
            texts = [_difference(*values) for values in numbers.itertuples(index=False)]
            rows = zip(table["row"], texts, strict=True)
            found.append(
                Column(words, tuple("reference" if row == block.reference else text for row, text in rows), "diff.")
            )
    if found and "pairs" in table:
        found.insert(0, Column("pairs", tuple(_number(value, 0) for value in table["pairs"])))
    return found


def _difference(mean: float, low: float, high: float, p: float) -> str:
    if pd.isna(mean):
        return DASH
    interval = f" [{low:+.1f}, {high:+.1f}]" if pd.notna(low) else ""
    return f"{mean:+.1f}{interval}{MARK if p < LEVEL else ''}"


def _plain(table: pd.DataFrame, name: str, group: str, sign: str = "") -> Column:
    words = next(words for figure, words in _PRINTED.items() if figure in name)
    return Column(words, tuple(_number(value, 1, sign) for value in table[name]), group)


def _published(table: pd.DataFrame) -> list[Column]:
    if not any(_present(table, "paper_rank1")):
        return []
    found = [_plain(table, f"paper_{name}", "paper") for name in _PRINTED]
    apart = [f"{name}_to_paper" for name in _PRINTED if any(_present(table, f"{name}_to_paper"))]
    found += [_plain(table, name, "to paper", "+") for name in apart]
    if len(set(_protocols(table))) > 1:  # if there is only one, a note below the table names it
        found.append(Column("paper's protocol", tuple(map(_key, table["paper_protocol"])), figure=False))
    return found


def _protocols(table: pd.DataFrame) -> list[str]:
    """The `paper_protocol` of every line that has one."""
    there = _present(table, "paper_protocol")
    return [str(table["paper_protocol"].iloc[line]) for line in range(len(table)) if there[line]]


def _costs(table: pd.DataFrame) -> list[Column]:
    return [
        Column(words, tuple(_number(value, digits, scale=scale) for value in pd.to_numeric(table[name])), group)
        for name, (group, words, scale, digits) in _COSTS.items()
        if any(_present(table, name))
    ]


def _present(table: pd.DataFrame, name: str) -> list[bool]:
    return list(table[name].notna()) if name in table else [False] * len(table)


def _number(value: float | None, digits: int, sign: str = "", scale: float = 1) -> str:
    return DASH if value is None or pd.isna(value) else f"{value * scale:{sign}.{digits}f}"
