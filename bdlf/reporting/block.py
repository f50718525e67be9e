"""A block: one table of the report, before it is written in one of the formats or drawn as a figure."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Block:
    """One table of one protocol, with plain numbers; `bdlf.reporting.render` turns it into text.

    `table` has one line for every row of the table. The columns `row` and `runs` are always filled; a value in any
    other column may be missing.

    - The row: `row` is its unique name. `runs` says how many runs the figures are means of, as in `3 of 3`; for a
      published method it is the venue.
    - Figures: `rank1`, `mAP` and `mINP` are means over runs, in percent. `<figure>_std` is the standard deviation over
      runs.
    - Differences: `<figure>_difference` is how many points the row is above the reference row. `<figure>_low` and
      `<figure>_high` are the ends of its 95 % interval, and `<figure>_p` is its p-value, adjusted by Holm within the
      table. `pairs` is the number of pairs of runs behind them.
    - Published: `paper_rank1` and `paper_mAP` are what the paper prints, and `paper_protocol` says whether the paper's
      protocol is ours (`bdlf.reporting.published.paper`). `rank1_to_paper` and `mAP_to_paper` are ours minus the
      paper's.
    - Costs: those of `bdlf.runs.card.COSTS`, means over runs.
    """

    title: str
    keys: tuple[str, ...]
    """The columns of `table` that say what a row is, from left to right. Booleans are shown as check marks."""
    table: pd.DataFrame
    notes: tuple[str, ...]
    """The sentences below the table."""
    card: tuple[tuple[str, str], ...] = ()
    """The protocol card: pairs of a name and a value."""
    reference: str | None = None
    """The `row` that the other rows are compared with; None if there is none."""
    problems: tuple[str, ...] = ()
    """What the user is warned of: runs that take no part in the differences, or that have other images than most."""
