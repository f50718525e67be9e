"""Decides which runs stand together in a block of a table: those of one family, one way of scoring, the same images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bdlf.reporting.composed import SHARED
from bdlf.reporting.families import ROOF, Family, Table
from bdlf.reporting.gather import PROTOCOL, Gathered
from bdlf.runs.selection import RULES

SCORING = [*PROTOCOL, "selection", "reported"]
"""Columns that say how a row of the frame was scored; all rows of a block agree in them. `reported` is the model."""
PAPER = {"dfe.stage": 3, "dfe.blocks": 6}
"""The paper's values of the keys that Table 3 and Figure 4 vary."""
_REPETITION = ["seed", "split"]


def repetitions(runs: pd.DataFrame) -> list[tuple[int, int]]:
    """The seed and the split of every run; the split is 0 for a run without one."""
    splits = runs["split"].fillna(0).astype(int)
    return list(zip(runs["seed"].astype(int), splits, strict=True))


@dataclass(frozen=True)
class Part:
    """The runs of one block: those of one family that were scored in one way and on the same images."""

    table: Table
    family: Family
    card: dict[str, Any]
    """The values of SCORING, which all runs share."""
    runs: pd.DataFrame
    """Rows of the tidy frame; the column `row` names the row of the table that each belongs to."""
    left: pd.DataFrame
    """The runs of the family that have no usable result, likewise with the column `row`."""
    images: int
    """0 if the runs have the images that most runs have, else 1, 2, ..."""

    @property
    def title(self) -> str:
        """The title of the block, without what distinguishes it from other blocks."""
        return self.family.title or self.table.title

    @cached_property
    def wanted(self) -> set[tuple[int, int]]:
        """The (seed, split) of every run of the block, finished or not."""
        return {*repetitions(self.runs), *repetitions(self.left)}


def parts_of(gathered: Gathered, table: Table, *, least: int = 1, main_only: bool = False) -> list[Part]:
    """The runs of every block that has runs in at least `least` rows. The family with most runs comes first.

    With `main_only`, only that family gets blocks. Families at another stage or number of blocks than the paper's come
    after the others, and so do those in which each method has its own recipe. A family gets a block only if it has rows
    that no block of an earlier family shows. Of a run that has an averaged model, the block shows this model alone,
    otherwise the raw one.
    """
    if gathered.frame.empty:
        return []
    frame = _reported(gathered.frame, table)
    places = frame.groupby("group").indices
    runs = frame.groupby("group")["path"].nunique().to_dict()
    families = [
        (
            _not_the_papers(table, family),
            (family.recipe != SHARED, -sum(runs.get(row.group, 0) for row in family.rows.values())),
            family,
        )
        for family in table.families(gathered.configurations.values())
    ]
    shown: dict[tuple, set[str]] = {}  # from a way of scoring and images to the groups that blocks show already
    parts: list[Part] = []
    for other, _, family in sorted(families, key=lambda item: item[:2]):
        present = [row.group for row in family.rows.values() if row.group in places]
        if len(present) < least or (parts and main_only):
            continue
        own = frame.iloc[np.sort(np.concatenate([places[group] for group in present]))]
        for key, part in _of_family(gathered, own, table, family):
            groups = {*part.runs["group"]}
            before = shown.setdefault(key, set())
            needed = least
            if before and (other or table.name == "by"):  # a single new row is then no reason for a block
                needed = max(2, least)
            if len(groups) >= least and len(groups - before) >= needed:
                parts.append(part)
                before |= groups
    return sorted(parts, key=lambda part: (part.images, list(RULES).index(part.card["selection"])))


def _not_the_papers(table: Table, family: Family) -> bool:
    """Whether a family has another stage or number of blocks than the paper's table."""
    return any(family.common.get(key, PAPER[key]) != PAPER[key] for key in table.fixed)


def _reported(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """The rows of the models that are shown, with the columns `reported` and `scoring` (a number for each SCORING)."""
    averaged = frame["path"].isin(frame["path"][frame["model"] == "ema"])
    frame = frame[(frame["model"] == "ema") | ~averaged]
    # Both models may stand in one block where its rows may differ in whether they average weights
    compared = table.name == ROOF or any(key.startswith("ema.") for key in table.keys)
    frame = frame.assign(reported="reported" if compared else frame["model"])
    numbered: pd.DataFrame = frame.assign(scoring=frame.groupby(SCORING, dropna=False, sort=False).ngroup())
    return numbered


def _of_family(gathered: Gathered, frame: pd.DataFrame, table: Table, family: Family) -> Iterator[tuple[tuple, Part]]:
    row_of = {asked.group: name for name, asked in family.rows.items()}
    frame = frame.assign(row=frame["group"].map(row_of))
    varied = any(key.startswith("dataset.") for key in table.keys)
    frame = frame.assign(images=_images(frame, ["row"] if varied else []))
    left = gathered.unfinished
    if left.empty:
        left = pd.DataFrame(columns=["group", *_REPETITION, "state", "epochs"])
    left = left.assign(row=left["group"].map(row_of))[left["group"].isin(row_of)]
    for _, runs in frame.groupby(["scoring", "images"], sort=False):
        scoring, images = (int(runs[name].iloc[0]) for name in ("scoring", "images"))
        card = {name: _plain(runs[name].iloc[0]) for name in SCORING}
        if runs["model"].nunique() == 1:
            card["reported"] = str(runs["model"].iloc[0])
        own = family if family.recipe == SHARED else _scored(family, runs)
        missed = left[left["row"].isin(own.rows)]
        yield (scoring, images), Part(table, own, card, runs, missed[:0] if images else missed, images)


def _scored(family: Family, runs: pd.DataFrame) -> Family:
    """The family with the rows that have runs. In its recipe each method is scored in a way of its own."""
    return replace(family, rows={name: row for name, row in family.rows.items() if (runs["row"] == name).any()})


def _plain(value: Any) -> Any:
    """A value of a frame as a value of Python: None if it is missing, without numpy's types otherwise."""
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _images(frame: pd.DataFrame, varied: Sequence[str]) -> pd.Series | int:
    """Numbers the sets of images (by fingerprint) of the runs: for each row of the frame, the number of its set.

    The set that most runs of a dataset and split have is 0, the others are 1, 2, ... If the table varies the images,
    `varied` names the column by whose values they differ, and the sets are numbered for each value.
    """
    own = ["dataset", "split", *varied]  # each of RegDB's splits has its own fingerprint
    frame = frame.assign(split=frame["split"].fillna(0))
    runs = frame.drop_duplicates("path").groupby([*own, "fingerprint"], sort=False).size()
    ranks: pd.Series = runs.sort_values(ascending=False, kind="stable").groupby(level=own).cumcount()
    if (ranks == 0).all():
        return 0
    keys = pd.MultiIndex.from_frame(frame[[*own, "fingerprint"]])
    places: pd.Series = pd.Series(ranks.reindex(keys).to_numpy(), index=frame.index)
    return places
