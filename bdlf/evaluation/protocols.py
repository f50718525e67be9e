"""Turns a dataset's protocol and its listing into trials: which images are queries, and which are the gallery.

What is special about a dataset's protocol stands in the dataset's own file in `bdlf.datasets`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bdlf.datasets import DATASETS
from bdlf.datasets.choices import Asked, Choice, choices
from bdlf.datasets.description import MODALITIES
from bdlf.datasets.galleries import ascending
from bdlf.datasets.protocol import Candidates, Rule
from bdlf.system.errors import InputError

Trial = tuple[np.ndarray, np.ndarray]
"""Rows of the queries and of the gallery in the listing, each ascending: the listing's order decides between equals."""


@dataclass(frozen=True, eq=False)
class Setting(Choice):
    """One way to score a dataset, and the rows of the listing that it needs."""

    rule: str
    """`protocol` of `retrieval_metrics`"""
    trials: tuple[Trial, ...]


def settings(
    dataset: str,
    listing: pd.DataFrame,
    asked: Asked,
    *,
    root: str | Path | None = None,
    split: str = "test",
) -> list[Setting]:
    """The settings that are `asked` for, on the rows of `listing` in `split`.

    `root` is the dataset's folder, from which some galleries are read. A mode that has no gallery image is left out in
    every `split` but "test". For example, only cameras 3, 4 and 5 have seen SYSU-MM01's validation identities, so these
    identities have no gallery indoors.

    Raises InputError on an unknown dataset, on what its protocol does not define, on a listing without images of a
    modality in `split`, on an empty gallery, on a trial in which no query has a match, and on official galleries that
    are missing or do not fit the listing. A trial in which only some queries have a match is usual: indoors, 1,595 of
    SYSU-MM01's 3,803 queries have one.
    """
    chosen = choices(dataset, asked)
    part = listing[listing["split"] == split]
    sides = {modality: part[part["modality"] == modality] for modality in MODALITIES}
    for modality, images in sides.items():
        if images.empty:
            raise InputError(f"the listing of {dataset} has no {split} image of modality {modality}: both are needed")
    pids = np.unique(part["pid"]).tolist()
    folder = None if root is None else Path(root)
    protocol = DATASETS[dataset].protocol

    found = []
    for choice in chosen:
        queried, searched = choice.direction.split("_to_")
        queries, images = ascending(sides[queried].index), sides[searched]
        cameras = () if choice.mode is None else protocol.modes[choice.mode]
        if cameras:
            images = images[images["camid"].isin(cameras)]
        if images.empty and split == "test":
            named = ", ".join(map(str, cameras))
            raise InputError(f"{choice.name}: it searches cameras {named}, which have no test image: restore them")
        if images.empty:
            continue
        drawn = protocol.galleries[choice.gallery].draw(Candidates(images, pids, cameras, folder, choice.shots))
        if (choice.reading, choice.direction) in protocol.drawn_queries:
            trials = tuple((rows, queries) for rows in drawn)
        else:
            trials = tuple((queries, rows) for rows in drawn)
        setting = Setting(**vars(choice), rule=protocol.rule.name, trials=trials)
        _require_matches(setting, listing, split)
        found.append(setting)
    if not found:
        raise InputError(f"the listing of {dataset} has no {split} image in any camera that is searched: restore them")
    return found


def _hidden(rule: Rule, query: pd.Series, gallery: pd.Series) -> pd.Series:
    """Whether a query of one camera does not see an image of its own identity in the other; as `retrieval_metrics`."""
    hidden = (query == gallery) & rule.hides_own_camera
    for query_camera, gallery_camera in rule.hidden_cameras:
        hidden |= (query == query_camera) & (gallery == gallery_camera)
    return hidden


def _require_matches(setting: Setting, listing: pd.DataFrame, split: str) -> None:
    """Raises InputError where no query of some trial has a match that the protocol shows it."""
    rule = DATASETS[setting.dataset].protocol.rule
    folders = listing.groupby(["pid", "camid"], sort=False).ngroup()
    first = listing.assign(folder=folders).drop_duplicates("folder").set_index("folder")[["pid", "camid"]]
    checked: set[tuple[bytes, ...]] = set()  # most trials draw from the same identities and cameras
    for trial, rows in enumerate(setting.trials):
        drawn = [np.unique(folders.loc[side].to_numpy()) for side in rows]
        if (key := tuple(side.tobytes() for side in drawn)) in checked:
            continue
        checked.add(key)
        queries, gallery = (first.loc[side] for side in drawn)
        pairs = queries.merge(gallery, on="pid", suffixes=("_query", "_gallery"))
        if (~_hidden(rule, pairs["camid_query"], pairs["camid_gallery"])).any():
            continue
        common = pairs["pid"].nunique()
        searched, shown = queries["pid"].nunique(), gallery["pid"].nunique()
        why = (
            f"the {searched} identities of the queries and the {shown} of the gallery have none in common"
            if not common
            else f"of the {common} identities in both, a query {rule.hides}, and they have no other"
        )
        raise InputError(
            f"{setting.name}: no query of trial {trial} has a match in the gallery: {why}; restore the {split} images"
        )
