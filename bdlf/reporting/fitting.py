"""Makes columns fit a page: shortens long texts with a legend, and distributes columns over several tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from bdlf.reporting.columns import Column


def packed(
    keys: Sequence[Column], columns: Sequence[Column], room: float, width: Callable[[Column], float]
) -> list[list[Column]]:
    """Distribute `columns`, in their order, over as few tables as possible.

    Each table begins with the keys and is no wider than `room`. A column that is too wide stands in a table alone.
    `width` measures a column, in the unit of `room`.
    """
    start = sum(map(width, keys))
    tables: list[list[Column]] = []
    left = -1.0
    for column in columns:
        if width(column) > left:
            tables.append([])
            left = room - start
        tables[-1].append(column)
        left -= width(column)
    return tables


class Legend:
    """Shortens long texts and numbers them; `lines` gives the whole text for each number."""

    def __init__(self, longest: int) -> None:
        """A text of at most `longest` characters is left as it is."""
        self.longest = longest
        self._numbers: dict[str, int] = {}

    @property
    def lines(self) -> dict[str, str]:
        """The whole text of each number; the numbers are `(1)`, `(2)` ..."""
        return {f"({number})": text for text, number in self._numbers.items()}

    def short(self, text: str, longest: int) -> str:
        """`text`, or, if it has more than `longest` characters, its two ends with a number: `a-long-na…warm-up (1)`."""
        if len(text) <= longest:
            return text
        number = self._number(text)
        kept = longest - len(number) - 2
        return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]} {number}"

    def column(self, column: Column) -> Column:
        """The column with long texts cut after their first clause, as in `2 of 3 (1)`. Figures are never cut."""
        if column.figure:
            return column
        texts = []
        for text in column.texts:
            clause = re.split("[,;] ", text)[0]
            cut = len(text) > self.longest and clause != text
            texts.append(
                f"{self.short(clause, self.longest)} {self._number(text)}" if cut else self.short(text, self.longest)
            )
        return replace(column, texts=tuple(texts))

    def keys(self, keys: Sequence[Column], room: float, width: Callable[[Column], float]) -> list[Column]:
        """The keys, shortened so that together they are no wider than `room`.

        If they cannot be made short enough, a single column of numbers replaces them, and the legend gives the keys of
        each number.
        """
        for longest in (self.longest, self.longest // 2):
            trial = Legend(longest)
            trial._numbers = dict(self._numbers)
            short = [trial._key(key) for key in keys]
            if sum(map(width, short)) <= room:
                self._numbers = trial._numbers
                return short
        rows = [", ".join(f"{key.head}={text}" for key, text in zip(keys, texts, strict=True)) for texts in _rows(keys)]
        return [Column("row", tuple(map(self._number, rows)), figure=False)]

    def _key(self, key: Column) -> Column:
        head, *texts = (self.short(text, self.longest) for text in (key.head, *key.texts))
        return replace(key, head=head, texts=tuple(texts))

    def _number(self, text: str) -> str:
        return f"({self._numbers.setdefault(text, len(self._numbers) + 1)})"


def _rows(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    return list(zip(*(column.texts for column in columns), strict=True))
