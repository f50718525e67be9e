"""Looks at all files of a dataset: images that no list names, that lie in the wrong place, or that cannot be read."""

from __future__ import annotations

import os
import stat
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from bdlf.datasets import DATASETS
from bdlf.datasets.decoding import BadImageError, read_image, to_rgb
from bdlf.datasets.description import Checks, Seat
from bdlf.datasets.links import links_out
from bdlf.datasets.marks import CONSTANT, mark, swapped_modalities
from bdlf.datasets.problems import Problems
from bdlf.datasets.tree import is_image, report_no_file, report_unreadable

_DEEPEST = 5  # folders below the root; a link may lead back up


class Tree(NamedTuple):
    """The files in a dataset's image folders, by their paths relative to the root."""

    sizes: dict[str, int]
    """The size of every image in bytes."""
    others: list[str]
    """Files that are no images, sorted."""


def walk(name: str, root: Path, problems: Problems, *, follow_links: bool = False) -> Tree:
    """Every file in the image folders of the dataset `name`. Links out of `root` are left out without `follow_links`.

    Problems: a folder cannot be read, an image is empty, or something named like an image is no file.
    """

    def unreadable(error: OSError) -> None:
        report_unreadable(root, Path(error.filename).relative_to(root).as_posix(), error, problems)

    sizes: dict[str, int] = {}
    others: list[str] = []
    tops = DATASETS[name].image_folders
    passed_by = set() if follow_links else {root / path for path in links_out(root, tops)}
    for top in tops:
        if root / top in passed_by:
            continue
        for folder, subfolders, files in os.walk(root / top, onerror=unreadable, followlinks=True):
            inside = Path(folder).relative_to(root)
            subfolders[:] = [entry for entry in subfolders if root / inside / entry not in passed_by]
            files = [entry for entry in files if root / inside / entry not in passed_by]
            if len(inside.parts) >= _DEEPEST:
                subfolders.clear()
            for entry in subfolders:
                if is_image(entry):
                    report_no_file(root, (inside / entry).as_posix(), problems)
            for entry in files:
                path = (inside / entry).as_posix()
                status = None
                try:
                    status = os.stat(root / path)
                except OSError as error:
                    if not is_image(entry):
                        report_unreadable(root, path, error, problems)  # it may be a folder
                if not is_image(entry):
                    others.append(path)
                elif status is None or not stat.S_ISREG(status.st_mode):
                    report_no_file(root, path, problems)
                else:
                    sizes[path] = status.st_size
    for path in sorted(path for path, size in sizes.items() if size == 0):
        problems.report("empty image", path, f"{root / path}: empty: restore it from the dataset")
    return Tree(dict(sorted(sizes.items())), sorted(others))


def decode_all(root: Path, paths: Sequence[str], problems: Problems) -> dict[str, int]:
    """Decodes every image as training would, on all processors, with a progress bar on the terminal.

    Returns the marks (`bdlf.datasets.marks`) of the images that can be read. Every image that cannot is a problem.
    """

    def attempt(path: str) -> int | BadImageError:
        try:
            return read_image(f"{root}/{path}", lambda image: mark(np.asarray(to_rgb(image)), image.mode))
        except BadImageError as error:
            return error

    marks = {}
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), desc="opening images", unit="img", disable=None, leave=False) as bar,
    ):
        warnings.simplefilter("ignore")  # of Pillow, about large images and odd metadata
        for path, found in zip(paths, pool.map(attempt, paths), strict=True):
            if isinstance(found, BadImageError):
                problems.report(found.kind, path, f"{root / path}: {found}: {found.remedy.format('it')}")
            else:
                marks[path] = found
            bar.update()
    return marks


def check_marks(name: str, root: Path, marks: Mapping[str, int], problems: Problems) -> None:
    """A problem for every image of one single value, and one where the modalities look swapped."""
    for path, own in marks.items():
        if own & CONSTANT:
            message = f"{root / path}: all its pixels have one single value: restore it from the dataset"
            problems.suspect("image of one single value", path, message)
    seats = [(seat, own) for path, own in marks.items() if (seat := seat_of(name, path)) is not None]
    told = swapped_modalities([seat.modality for seat, _ in seats], [own for _, own in seats])
    if told is not None:
        problems.suspect("modalities look swapped", "visible and infrared", f"{root}: {told}")


def check_places(name: str, root: Path, images: Iterable[str], problems: Problems) -> None:
    """A problem for every folder that no image belongs in, and for every image whose name does not fit its folder."""
    wrong_name = checks_of(name).wrong_name
    strangers: dict[str, list[str]] = defaultdict(list)
    for path in images:
        seat = seat_of(name, path)
        if seat is None:
            strangers[path.rpartition("/")[0]].append(path)
        elif wrong_name is not None and (wrong := wrong_name(PurePosixPath(path).name, seat)) is not None:
            kind, words = wrong
            problems.suspect(kind, path, f"{root / path}: {words}")
    for folder, paths in strangers.items():
        message = (
            f"{root / folder} holds {len(paths)} images where the dataset has none: move them to where they belong"
        )
        problems.suspect("image out of place", folder, message)


def check_unlisted(
    name: str, root: Path, images: Iterable[str], tables: Sequence[pd.DataFrame], expected: int, problems: Problems
) -> str | None:
    """A problem for every image on disk that is in no list, or for its folder where none of the folder's images is.

    A dataset can judge them by a rule of its own (`Checks.unlisted`), to which `expected` is handed: how many
    identities of an intact copy are in no list. Returns what that rule has to say, or None.
    """
    checks = checks_of(name)
    listed = set().union(*(set(table["path"]) for table in tables))
    tested = set().union(*(set(table["pid"][table["split"] == "test"]) for table in tables))
    seats = {path: seat for path in images if (seat := seat_of(name, path)) is not None}
    unlisted = {path: seat for path, seat in seats.items() if path not in listed}
    if checks.unlisted is not None:
        return checks.unlisted(root, list(unlisted.values()), expected, problems)
    known_folders = {path.rpartition("/")[0] for path in listed}
    for path, seat in unlisted.items():
        folder = path.rpartition("/")[0]
        if checks.may_be_unlisted is not None and checks.may_be_unlisted(seat, tested):
            continue
        if folder in known_folders:
            message = f"{root / path} is in no list that was read: remove it, or restore the lists"
            problems.suspect("unlisted image", path, message)
        else:
            message = (
                f"{root / folder} holds images, and no list that was read names one: remove it, or restore the lists"
            )
            problems.suspect("unlisted identity", folder, message)
    return None


def seat_of(name: str, path: str) -> Seat | None:
    """What the folder of an image says, or None where no image of the dataset belongs."""
    return checks_of(name).seat_of(PurePosixPath(path).parts)


def checks_of(name: str) -> Checks:
    """The checks of a dataset that has files."""
    checks = DATASETS[name].checks
    assert checks is not None
    return checks
