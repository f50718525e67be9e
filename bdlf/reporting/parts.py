"""Which runs stand together in one block of a table: one family, one way of scoring, the same images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bdlf.reporting.families import Family, Table
from bdlf.reporting.gather import PROTOCOL, Gathered
from bdlf.runs.selection import RULES

SCORING = [*PROTOCOL, "selection", "reported"]
"""What says how a cell was scored: the same in all of a block's cells. `reported` is the model."""
PAPER = {"dfe.stage": 3, "dfe.blocks": 6}
_REPETITION = ["seed", "split"]


def repetitions(runs: pd.DataFrame) -> list[tuple[int, int]]:
    """Seed and split (0 where there is none) of every run."""
    splits = runs["split"].fillna(0).astype(int)
    return list(zip(runs["seed"].astype(int), splits, strict=True))


@dataclass(frozen=True)
class Part:
    """The runs of one block: a family's rows under one way of scoring and on the same images."""

    table: Table
    family: Family
    card: dict[str, Any]
    runs: pd.DataFrame
    """Rows of the tidy frame, with the `row` of the table that each belongs to."""
    left: pd.DataFrame
    """Unfinished runs of the family's rows, with their `row`."""
    images: int
    """0 for the images of most runs, else 1, 2, ..."""

    @cached_property
    def wanted(self) -> set[tuple[int, int]]:
        """The seeds and splits that some row has, or has begun."""
        return {*repetitions(self.runs), *repetitions(self.left)}


def parts_of(gathered: Gathered, table: Table, *, least: int = 1, main_only: bool = False) -> list[Part]:
    """The runs of every block that has runs in `least` rows, the blocks of the largest family of runs first.

    A block shows the averaged model where runs have one, else the raw one. A family gets a block only where it has rows
    of its own, which the blocks of larger families do not show already. `main_only`: of the largest family alone.
    """
    if gathered.frame.empty:
        return []
    frame = _reported(gathered.frame, table)
    places = frame.groupby("group").indices
    runs = frame.groupby("group")["path"].nunique().to_dict()
    families = [
        (_not_the_papers(table, family), -sum(runs.get(row.group, 0) for row in family.rows.values()), family)
        for family in table.families(gathered.configurations.values())
    ]
    shown: dict[tuple, set[str]] = {}
    parts: list[Part] = []
    for other, _, family in sorted(families, key=lambda item: item[:2]):
        present = [row.group for row in family.rows.values() if row.group in places]
        if len(present) < least or (parts and main_only):
            continue
        own = frame.iloc[np.sort(np.concatenate([places[group] for group in present]))]
        for key, part in _of_family(gathered, own, table, family):
            groups = {*part.runs["group"]}
            before = shown.setdefault(key, set())
            new = groups - before
            alone = 2 if before and (other or table.name == "by") else 1
            if len(groups) >= least and len(new) >= (max(alone, least) if before else least):
                parts.append(part)
                before |= groups
    return sorted(parts, key=lambda part: (part.images, list(RULES).index(part.card["selection"])))


def _not_the_papers(table: Table, family: Family) -> bool:
    """Whether a family is at another stage or number of blocks than the paper's tables."""
    return any(family.common.get(key, PAPER[key]) != PAPER[key] for key in table.fixed)


def _reported(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    averaged = frame["path"].isin(frame["path"][frame["model"] == "ema"])
    frame = frame[(frame["model"] == "ema") | ~averaged]
    compared = any(key.startswith("ema.") for key in table.keys)  # else raw and averaged models never share a block
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
        card = {name: None if pd.isna(value := runs[name].iloc[0]) else value for name in SCORING}
        yield (scoring, images), Part(table, family, card, runs, left[:0] if images else left, images)


def _images(frame: pd.DataFrame, varied: Sequence[str]) -> pd.Series | int:
    """For every row, 0 where its images (by fingerprint) are those of most runs of its split, else 1, 2, ...

    `varied` names a column whose values are expected to differ in their images.
    """
    own = ["dataset", "split", *varied]  # each of RegDB's splits has a fingerprint of its own
    frame = frame.assign(split=frame["split"].fillna(0))
    runs = frame.drop_duplicates("path").groupby([*own, "fingerprint"], sort=False).size()
    ranks: pd.Series = runs.sort_values(ascending=False, kind="stable").groupby(level=own).cumcount()
    if (ranks == 0).all():
        return 0
    keys = pd.MultiIndex.from_frame(frame[[*own, "fingerprint"]])
    places: pd.Series = pd.Series(ranks.reindex(keys).to_numpy(), index=frame.index)
    return places
