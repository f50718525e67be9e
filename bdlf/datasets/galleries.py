"""The two ways to draw a gallery that datasets share: everything, and AGW's random choice."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bdlf.datasets.protocol import Candidates, Gallery

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

TRIALS = 10
"""Random galleries for each setting [paper: the datasets' own protocols]."""


def ascending(rows: Iterable[int]) -> Rows:
    """The rows as an ascending array: the order of the listing decides between equal similarities."""
    import numpy as np

    return np.sort(np.fromiter(rows, dtype=np.int64))


def image_folders(images: pd.DataFrame) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Sorted file names with their rows in the listing, for each (identity, camera) that has any.

    The identities ascend as texts of four digits, then the cameras ascend: the order in which AGW draws.
    """
    folders: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for row, path, pid, camid in zip(images.index, images["path"], images["pid"], images["camid"], strict=True):
        folders.setdefault((pid, camid), []).append((PurePosixPath(path).name, row))
    return {folder: sorted(folders[folder]) for folder in sorted(folders, key=lambda at: (f"{at[0]:04d}", at[1]))}


def _draw_everything(candidates: Candidates) -> list[Rows]:
    return [ascending(candidates.images.index)]


def _draw_as_agw(candidates: Candidates) -> list[Rows]:
    """One image of every identity and camera; an identity that a camera has not seen draws nothing [lineage, AGW]."""
    folders = list(image_folders(candidates.images).values())
    draws = []
    for trial in range(TRIALS):
        generator = random.Random(trial)
        draws.append(ascending(generator.choice(files)[1] for files in folders))
    return draws


EVERYTHING = Gallery(
    _draw_everything,
    trials=1,
    draws="nothing",
    how="The gallery is all images of its modality, so there is a single trial and nothing is random.",
)
"""`gallery=all`"""

AGW = Gallery(
    _draw_as_agw,
    trials=TRIALS,
    draws="one image per identity and camera",
    how=(
        f"The gallery of trial t (t = 0..{TRIALS - 1}) holds one image of each identity and camera. As in the code of "
        "AGW, Python's random.Random(t), seeded with the number of the trial, chooses among the sorted file names; "
        "identities and cameras follow one another in ascending order, and a camera that never saw a person draws "
        "nothing."
    ),
    shots=(1,),
)
"""`gallery=agw`"""
