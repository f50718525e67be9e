"""A table of the report: what every format writes and the figures draw."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Block:
    """One table of one protocol, with plain numbers; `bdlf.reporting.render` turns it into text.

    `table` has one line per row. Its columns `row` and `runs` must be there; any other value may be missing.

    - The row: `row`, a unique text, and `runs`, how many runs the figures are of, like `3 of 3`, or the venue of a
      published method.
    - Figures: `rank1`, `mAP` and `mINP` in percent, means over runs, each with `<figure>_std`, the standard deviation
      over runs.
    - Differences: `<figure>_difference`, `_low` and `_high`, points above the reference row and their 95 % interval,
      with `<figure>_p`, the p-value adjusted by Holm within the table, and `pairs`, the number of pairs of runs.
    - Published: `paper_rank1`, `paper_mAP` and `paper_protocol`, what the paper prints and whether it is of the same
      protocol (`bdlf.reporting.published.paper`); `rank1_to_paper` and `mAP_to_paper`, ours minus the paper's.
    - The costs of `bdlf.runs.card.COSTS`, means over runs.
    """

    title: str
    keys: tuple[str, ...]
    """Columns of `table` that say what a row is, left to right; a column of booleans is shown as check marks."""
    table: pd.DataFrame
    notes: tuple[str, ...]
    """Whole sentences below the table."""
    card: tuple[tuple[str, str], ...] = ()
    """The protocol card: names and values."""
    reference: str | None = None
    """The `row` that the others are compared with."""
    problems: tuple[str, ...] = ()
    """A line for each run whose figures of single queries cannot be used; its means are shown all the same."""
