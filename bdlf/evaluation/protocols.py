"""What is query, what is gallery, and in which trials: the protocols of SYSU-MM01, RegDB, LLCM and synthetic."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import pandas as pd

from bdlf.datasets.naming import protocol_name
from bdlf.datasets.problems import STRICT
from bdlf.datasets.sysu import PERMUTATIONS, read_permutations
from bdlf.system.errors import InputError

Trial = tuple[np.ndarray, np.ndarray]
"""Rows of the queries and of the gallery in the listing, each ascending: the listing's order decides between equals."""

TRIALS = 10
"""Random galleries per setting on SYSU-MM01 and LLCM [paper: the datasets' own protocols]."""
GALLERY_CAMERAS = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
"""Visible cameras of SYSU-MM01 that a mode searches."""

_BOTH = ("ir_to_vis", "vis_to_ir")
_KNOWN: dict[str, dict[str, tuple]] = {
    "sysu": {
        "mode": ("all", "indoor"),
        "shots": (1, 10),
        "direction": ("ir_to_vis",),
        "gallery": ("agw", "official"),
        "reading": (),
    },
    "regdb": {"mode": (), "shots": (), "direction": _BOTH, "gallery": ("all",), "reading": ()},
    "llcm": {"mode": (), "shots": (1,), "direction": _BOTH, "gallery": ("agw",), "reading": ("paper", "released")},
    "synthetic": {"mode": ("all",), "shots": (), "direction": _BOTH, "gallery": ("all",), "reading": ()},
}
"""What each dataset's protocol defines, the default first; of modes and directions the default is all."""


@dataclass(frozen=True)
class Choice:
    """One way to score a dataset; None where a choice does not apply to the dataset."""

    dataset: str
    mode: str | None
    """all | indoor"""
    shots: int | None
    """1 | 10: gallery images per identity and camera"""
    direction: str
    """ir_to_vis | vis_to_ir"""
    gallery: str
    """official | agw: how it is drawn; all: the whole test half"""
    reading: str | None
    """paper | released"""

    @property
    def name(self) -> str:
        """`ir_to_vis all 1-shot agw`"""
        return protocol_name(self.direction, self.mode, self.shots, self.gallery, self.reading)


@dataclass(frozen=True, eq=False)
class Setting(Choice):
    """One way to score a dataset, and the rows of the listing that it needs."""

    rule: str
    """`protocol` of `retrieval_metrics`"""
    trials: tuple[Trial, ...]


def choices(
    dataset: str,
    *,
    mode: str | None = None,
    shots: int | None = None,
    direction: str | None = None,
    gallery: str | None = None,
    reading: str | None = None,
) -> list[Choice]:
    """The ways to score a dataset, without its images; None is every mode and direction, else the default.

    Raises InputError on an unknown dataset and on what its protocol does not define.
    """
    if dataset not in _KNOWN:
        raise InputError(f"unknown dataset {dataset!r}: known are {', '.join(_KNOWN)}")
    modes, directions = _known(dataset, "mode", mode), _known(dataset, "direction", direction)
    shots = _known(dataset, "shots", shots)[0]
    gallery = _known(dataset, "gallery", gallery)[0]
    reading = _known(dataset, "reading", reading)[0]
    if gallery == "agw" and shots == 10:
        raise InputError(
            "gallery=agw draws one image per identity and camera, so shots=10 is undefined: take gallery=official"
        )
    return [
        Choice(dataset, one_mode, shots, one_direction, gallery, reading)
        for one_mode, one_direction in product(modes, directions)
    ]


def settings(
    dataset: str,
    listing: pd.DataFrame,
    *,
    root: str | Path | None = None,
    mode: str | None = None,
    shots: int | None = None,
    direction: str | None = None,
    gallery: str | None = None,
    reading: str | None = None,
    split: str = "test",
) -> list[Setting]:
    """The settings to score on the rows of `listing` in `split`; None is every mode and direction, else the default.

    - sysu: queries are all infrared images. Gallery, 10 trials: "agw" (default) draws one visible image per identity
      and camera with Python's generator; "official" takes the 1 or 10 that `<root>/exp/rand_perm_cam.mat` names.
    - regdb, synthetic: the whole test half of each modality, both directions, one trial.
    - llcm: queries are all images of one modality, the gallery one image per identity and camera of the other, drawn as
      "agw" draws, 10 trials. Reading "released" turns vis_to_ir around, as the code since June 2023 does: the drawn
      infrared images are the queries and all visible ones the gallery. Its ir_to_vis is that of "paper", the default.

    A mode without any gallery image in a `split` other than "test" is left out: SYSU-MM01's validation identities were
    seen by cameras 3, 4 and 5 alone, so that nothing is there to search indoors.

    Raises InputError on an unknown dataset, on what its protocol does not define, on a listing without images of a
    modality in `split`, on an empty gallery, on a protocol in which no query of a trial has a match, and on official
    galleries that are missing or do not fit the listing. (That some queries have no match is usual: SYSU-MM01 has
    1,595 of 3,803 with one indoors.)
    """
    asked = choices(dataset, mode=mode, shots=shots, direction=direction, gallery=gallery, reading=reading)
    test = listing[listing["split"] == split]
    sides = {modality: test[test["modality"] == modality] for modality in ("vis", "ir")}
    for modality, images in sides.items():
        if images.empty:
            raise InputError(f"the listing of {dataset} has no {split} image of modality {modality}: both are needed")

    found = []
    for choice in asked:
        queried, searched = choice.direction.split("_to_")
        queries, images = _rows(sides[queried].index), sides[searched]
        if dataset == "sysu":
            cameras = GALLERY_CAMERAS[cast(str, choice.mode)]
            images = images[images["camid"].isin(cameras)]
            if images.empty and split == "test":
                named = ", ".join(map(str, cameras))
                raise InputError(f"{choice.name}: it searches cameras {named}, which have no test image: restore them")
            if images.empty:
                continue
        if choice.gallery == "all":
            trials = [(queries, _rows(images.index))]
        elif choice.gallery == "official":
            pids, shown = np.unique(test["pid"]).tolist(), cast(int, choice.shots)
            drawn = _official_draws(images, pids, cameras, root, shown)
            trials = [(queries, rows) for rows in drawn]
        elif choice.reading == "released" and choice.direction == "vis_to_ir":
            trials = [(rows, queries) for rows in _agw_draws(images)]
        else:
            trials = [(queries, rows) for rows in _agw_draws(images)]
        rule = "regdb" if dataset == "synthetic" else dataset
        setting = Setting(**vars(choice), rule=rule, trials=tuple(trials))
        _require_matches(setting, listing, split)
        found.append(setting)
    if not found:
        raise InputError(f"the listing of {dataset} has no {split} image in any camera that is searched: restore them")
    return found


def _hidden(rule: str, query: pd.Series, gallery: pd.Series) -> pd.Series:
    """Whether a query of one camera does not see an image of its own identity in the other; as `retrieval_metrics`."""
    if rule == "sysu":
        return (query == 3) & (gallery == 2)
    return (query == gallery) & (rule == "llcm")


_HIDES = {"sysu": "of camera 3 does not see images of camera 2", "llcm": "does not see images of its own camera"}


def _require_matches(setting: Setting, listing: pd.DataFrame, split: str) -> None:
    """Raises InputError where no query of some trial has a match that the protocol shows it."""
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
        if (~_hidden(setting.rule, pairs["camid_query"], pairs["camid_gallery"])).any():
            continue
        common = pairs["pid"].nunique()
        searched, shown = queries["pid"].nunique(), gallery["pid"].nunique()
        why = (
            f"the {searched} identities of the queries and the {shown} of the gallery have none in common"
            if not common
            else f"of the {common} identities in both, a query {_HIDES[setting.rule]}, and they have no other"
        )
        raise InputError(
            f"{setting.name}: no query of trial {trial} has a match in the gallery: {why}; restore the {split} images"
        )


def _known(dataset: str, option: str, asked: Any) -> tuple:
    """What is asked for, or all that there is, the default first."""
    known = _KNOWN[dataset][option]
    if asked is None:
        return known or (None,)
    if asked not in known:
        reason = f"it has {', '.join(map(str, known))}" if known else f"its protocol has no choice of {option}"
        raise InputError(f"{dataset} is not scored with {option}={asked}: {reason}")
    return (asked,)


def _folders(images: pd.DataFrame) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """(identity, camera): sorted file names with their rows; identities ascending as 4-digit text, then cameras."""
    folders: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for row, path, pid, camid in zip(images.index, images["path"], images["pid"], images["camid"], strict=True):
        folders.setdefault((pid, camid), []).append((PurePosixPath(path).name, row))
    return {folder: sorted(folders[folder]) for folder in sorted(folders, key=lambda at: (f"{at[0]:04d}", at[1]))}


def _agw_draws(images: pd.DataFrame) -> list[np.ndarray]:
    """One file of every folder, the trial's number being the seed; an absent folder draws nothing [lineage, AGW]."""
    folders = list(_folders(images).values())
    draws = []
    for trial in range(TRIALS):
        generator = random.Random(trial)
        draws.append(_rows(generator.choice(files)[1] for files in folders))
    return draws


def _official_draws(
    images: pd.DataFrame, pids: Iterable[int], cameras: Iterable[int], root: str | Path | None, shots: int
) -> list[np.ndarray]:
    """The first `shots` file numbers of rand_perm_cam{camera}{identity}(trial, :), for every identity and camera."""
    if root is None:
        raise InputError(f"gallery=official reads {PERMUTATIONS}: the dataset's root is needed")
    path = Path(root) / PERMUTATIONS
    if not path.is_file():
        raise InputError(f"{path} is missing: copy it from SYSU-MM01, or take gallery=agw")
    orders = read_permutations(Path(root), STRICT)
    folders = _folders(images)
    draws: list[list[int]] = [[] for _ in range(TRIALS)]
    for camid, pid in product(cameras, pids):
        rows = {PurePosixPath(name).stem: row for name, row in folders.get((pid, camid), [])}
        order = orders.get((camid, pid), np.empty((0, 0), np.int64))
        if not rows and not order.size:
            continue
        if order.shape[0] < TRIALS or order.shape[1] < shots:
            raise InputError(
                f"{path} has {order.shape[0]} trials of {order.shape[1]} images for identity {pid} in camera {camid}: "
                f"{TRIALS} of {shots} are needed"
            )
        for trial, drawn in enumerate(draws):
            for number in order[trial, :shots]:
                name = f"{number:04d}"
                if name not in rows:
                    raise InputError(
                        f"cam{camid}/{pid:04d}/{name}.jpg, drawn by {path}, is not in the listing: restore it"
                    )
                drawn.append(rows[name])
    return [_rows(drawn) for drawn in draws]


def _rows(rows: Iterable[int]) -> np.ndarray:
    return np.sort(np.fromiter(rows, dtype=np.int64))
