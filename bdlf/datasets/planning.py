"""What the datasets share when `bdlf.synthesize` plans a tree in their layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class PlannedImage(NamedTuple):
    """One image of a tree that is about to be written."""

    identity: int
    """Number of the person among those drawn for this layout, from 0."""
    pid: int
    camid: int
    modality: str
    image: int
    """Number of the image among those of this identity, modality and camera, from 0."""
    split: str
    paths: list[str]
    """The files that hold the image; all but the first are copies."""


def image_table(images: Iterable[PlannedImage]) -> pd.DataFrame:
    """The images as a table, one row each."""
    import pandas as pd

    table: pd.DataFrame = pd.DataFrame(images, columns=list(PlannedImage._fields))
    return table


def random_splits(identities: int, shares: Mapping[str, float], random: np.random.Generator) -> list[str]:
    """A random split for each identity: `shares` of them, at least one each; the last split takes what is left."""
    order, result, start = random.permutation(identities), [""] * identities, 0
    for position, (split, share) in enumerate(shares.items()):
        left = len(shares) - 1 - position
        size = min(max(1, round(share * identities)), identities - start - left) if left else identities - start
        for who in order[start : start + size]:
            result[who] = split
        start += size
    return result


def comma_line(numbers: Iterable[int]) -> str:
    """The numbers on one line, separated by commas."""
    return ",".join(str(number) for number in numbers) + "\n"
