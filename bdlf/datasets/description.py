"""What the rest of the package must know of a dataset: the types that each dataset's own file fills in.

Nothing here imports NumPy or pandas, because every command looks datasets up by name before it does any work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bdlf.datasets.problems import Problems
from bdlf.datasets.protocol import Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MODALITIES = {"vis": "visible", "ir": "infrared"}
"""Values of the column `modality`, and the word for each. The sampler draws them in this order."""
SPLITS = ("train", "val", "test")
"""Values of the column `split`."""

Place = tuple[str, str | None, int | None]
"""A split, a modality and a camera; None stands for all of them."""


class Row(NamedTuple):
    """One image of a listing, without its split."""

    path: str
    """Relative to the dataset's root, with '/' between the parts."""
    pid: int
    camid: int
    modality: str


class Contents(NamedTuple):
    """What a reader has found."""

    rows: dict[str, list[Row]]
    """The images of each split that was asked for."""
    passed_over: list[str]
    """Paths of the files that lie among the images and are none."""


Reader = Callable[[Path, Sequence[str], int, Problems], Contents]
"""Reads (root, splits, number of the split, problems). The number is 1 where the dataset has no numbered splits."""


class Size(NamedTuple):
    """How many identities and images there are in a place; None: no number was published."""

    identities: int | None
    images: int


class Published(NamedTuple):
    """What an intact copy of a dataset holds."""

    source: str
    """Who says so, as in 'SYSU-MM01 as published'."""
    sizes: Mapping[Place, Size]
    unlisted: int = 0
    """How many identities have images and stand in no list."""


class Seat(NamedTuple):
    """What the folder of an image says about the image."""

    pid: int
    modality: str
    camera: int | None


class Evidence(NamedTuple):
    """What is known of a tree in which `bdlf.check` has found something wrong."""

    root: Path
    kinds: Mapping[str, str]
    """Where something is wrong: the kind of finding."""
    have: Mapping[str, int]
    """Identities of each split that the lists name."""
    want: Mapping[str, int]
    """Identities of each split in an intact copy."""


@dataclass(frozen=True)
class Checks:
    """What `bdlf.check` must know of a dataset beyond what its reader reads. Only the first two are needed."""

    marks: tuple[str, ...]
    """Folders at the root by which the dataset is recognised. No two datasets share one."""
    seat_of: Callable[[tuple[str, ...]], Seat | None]
    """What the folder says about an image, from the parts of its path; None where no image of the dataset belongs."""
    wrong_name: Callable[[str, Seat], tuple[str, str] | None] | None = None
    """Kind and words of what is wrong with a file's name in its folder, or None."""
    may_be_unlisted: Callable[[Seat, set[int]], bool] | None = None
    """Whether an image that stands in no list is all right, from its folder and the identities of the test split."""
    unlisted: Callable[[Path, Sequence[Seat], int, Problems], str | None] | None = None
    """Judges all images that stand in no list, where that is not done image by image; returns a note or None.

    Its arguments are the root, the images' folders, how many such identities an intact copy has, and the problems.
    """
    further: Callable[[Path, Sequence[str], Mapping[int | None, pd.DataFrame], Problems], str | None] | None = None
    """Looks at what only this dataset has; returns a note or None.

    Its arguments are the root, the paths of all images, the listing of each numbered split (key None: there are no
    numbered splits), and the problems.
    """
    hint: Callable[[Evidence], str | None] | None = None
    """Names the known mistake that a damaged tree looks like, and its remedy, or returns None."""


class Plan(NamedTuple):
    """The files of a tree that `bdlf.synthesize` writes."""

    images: pd.DataFrame
    """One row for each image: identity, pid, camid, modality, image, split, and `paths` of the files that hold it."""
    files: Mapping[str, str | bytes]
    """Content of each list by its path."""


@dataclass(frozen=True)
class Layout:
    """How `bdlf.synthesize` writes drawn pedestrians so that they look like the dataset on disk."""

    plan: Callable[[int, int, np.random.Generator], Plan]
    """Plans a tree of (identities, images for each identity and camera); the generator decides what is random."""
    folders: tuple[str, ...]
    """Folders that are made even where no image falls into them."""


class TimedTrial(NamedTuple):
    """The size of one trial, for the measurements of `bdlf.benchmark`."""

    queries: int
    gallery: int
    identities: int
    query_cameras: tuple[int, ...]
    gallery_cameras: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """All that is special about one dataset."""

    name: str
    """As in `dataset=sysu`, in results and in paths."""
    title: str
    """As a paper calls it."""
    paper: str
    """Where the dataset was published."""
    protocol: Protocol
    """How the dataset is scored."""
    read: Reader | None = None
    """None: the dataset has no files, its images are drawn."""
    folder: str | None = None
    """The folder below BDLF_DATA in which the dataset is looked for."""
    list_folders: tuple[str, ...] = ()
    """Folders at the root that hold lists."""
    image_folders: tuple[str, ...] = ()
    """Folders at the root that hold images."""
    splits: tuple[str, ...] = ("train", "test")
    """Splits of the identities, out of `SPLITS`."""
    numbered_splits: Sequence[int] = ()
    """Numbers of the random splits between which `dataset.split` chooses; empty: there is only one split."""
    published: Published | None = None
    checks: Checks | None = None
    """Needed where the dataset has files."""
    layout: Layout | None = None
    timed: TimedTrial | None = None

    @property
    def has_files(self) -> bool:
        """False for the synthetic dataset, whose images are drawn."""
        return self.read is not None

    @property
    def has_validation(self) -> bool:
        """Whether the dataset comes with validation identities; elsewhere `evaluation.holdout` sets some apart."""
        return "val" in self.splits

    @property
    def trained_identities(self) -> int | None:
        """How many identities everyone trains on: those of training and validation; None where it is not published."""
        if self.published is None:
            return None
        sizes = [self.published.sizes.get((split, None, None)) for split in self.splits if split != "test"]
        counts = [size.identities for size in sizes if size is not None and size.identities is not None]
        return sum(counts) if len(counts) == len(sizes) else None

    def split_number(self, split: int) -> int | None:
        """`split` where the dataset has numbered splits, else None: what stands beside a number in results."""
        return split if self.numbered_splits else None


def by_camera(
    cameras: Mapping[str, Mapping[str, Mapping[int, Size]]], identities: Mapping[str, int]
) -> dict[Place, Size]:
    """Sizes by split, modality and camera, with the sums over cameras and modalities added.

    `identities` are those of each split: a person is seen by several cameras, so identities cannot be summed.
    """
    sizes: dict[Place, Size] = {}
    for split, modalities in cameras.items():
        for modality, own in modalities.items():
            sizes |= {(split, modality, camera): size for camera, size in own.items()}
            sizes[split, modality, None] = Size(None, sum(size.images for size in own.values()))
        total = sum(size.images for own in modalities.values() for size in own.values())
        sizes[split, None, None] = Size(identities[split], total)
    return sizes


def place_name(place: Place) -> str:
    """`train visible camera 3`"""
    split, modality, camera = place
    words = (split, MODALITIES[modality] if modality else "", f"camera {camera}" if camera is not None else "")
    return " ".join(word for word in words if word)


def out_of_place(said: str) -> tuple[str, str]:
    """The answer of `Checks.wrong_name` for a name that says `said`, where the folder says something else."""
    return "image out of place", f"its name says {said}, its folder another: move it back, or extract again"
