"""Columns that fit a width: long texts shortened with a legend, the rest in further tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from bdlf.reporting.columns import Column


def packed(
    keys: Sequence[Column], columns: Sequence[Column], room: float, width: Callable[[Column], float]
) -> list[list[Column]]:
    """The columns in as few tables as hold them in their order, each no wider than `room` with the keys before it."""
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
    """Shortens long texts; the whole text stands under a number in `lines`."""

    def __init__(self, longest: int) -> None:
        """`longest`: characters that a text may have and is left as it is."""
        self.longest = longest
        self._numbers: dict[str, int] = {}

    @property
    def lines(self) -> dict[str, str]:
        """The whole texts by number, `(1)` ..."""
        return {f"({number})": text for text, number in self._numbers.items()}

    def short(self, text: str, longest: int) -> str:
        """`text`, or its beginning and end with a number, as in `a-long-na…warm-up (1)`."""
        if len(text) <= longest:
            return text
        number = self._number(text)
        kept = longest - len(number) - 2
        return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]} {number}"

    def column(self, column: Column) -> Column:
        """A column of texts, each long one cut after its first clause, as in `2 of 3 (1)`; one of figures as it is."""
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
        """The keys, shortened so that they take no more than `room`.

        Where that cannot be, one column numbers the rows, and the legend says the keys of each.
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
