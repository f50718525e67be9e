"""What lies on disk beside what the readers look for: images that no list names, in the wrong place, or unreadable."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from bdlf.datasets import llcm, regdb, sysu
from bdlf.datasets.decoding import BadImageError, read_image, to_rgb
from bdlf.datasets.links import FOLDERS, links_out
from bdlf.datasets.marks import CONSTANT, mark, swapped_modalities
from bdlf.datasets.problems import Problems
from bdlf.datasets.tree import is_image, read_list, report_no_file, report_unreadable

_DEEPEST = 5  # folders below the root; a link may lead back up
_REGDB_NAME = re.compile(r"_([vt])_\d+_(\d+)$")
"""The end of an image's name without suffix: modality, identity."""
_SYSU_TRIALS = 10


class Seat(NamedTuple):
    """What a folder says about the images in it."""

    pid: int
    modality: str
    camera: int | None


class Tree(NamedTuple):
    """The files in a dataset's image folders, by path relative to the root."""

    sizes: dict[str, int]
    """Bytes of every image."""
    others: list[str]
    """What is no image, sorted."""


def walk(name: str, root: Path, problems: Problems, *, follow_links: bool = False) -> Tree:
    """Every file in the image folders of the dataset `name`, less links out of `root` unless they are to be followed.

    Problems: a folder cannot be read, an image is empty, or something named like an image is no file.
    """

    def unreadable(error: OSError) -> None:
        report_unreadable(root, Path(error.filename).relative_to(root).as_posix(), error, problems)

    sizes: dict[str, int] = {}
    others: list[str] = []
    tops = FOLDERS[name][1:]
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
                        report_unreadable(root, path, error, problems)  # a folder, for all we know
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
    """Opens every image as training would, on all processors, with a bar on the terminal.

    Returns the marks (`bdlf.datasets.marks`) of the images that can be read. What cannot be read is a problem.
    """

    def attempt(path: str) -> int | BadImageError:
        try:
            return read_image(f"{root}/{path}", lambda image: mark(np.asarray(to_rgb(image))))
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
    """A problem for every folder that no image belongs in, and every image whose name speaks of another place."""
    strangers: dict[str, list[str]] = defaultdict(list)
    for path in images:
        seat = seat_of(name, path)
        if seat is None:
            strangers[path.rpartition("/")[0]].append(path)
            continue
        stem = PurePosixPath(path).stem
        if name == "sysu":
            if not re.fullmatch(r"\d{4}", stem):
                message = f"{root / path}: the name is not of 4 digits, as the official galleries need it: restore it"
                problems.suspect("image name", path, message)
        elif wrong := (_regdb_mismatch if name == "regdb" else _llcm_mismatch)(PurePosixPath(path).name, seat):
            message = f"{root / path}: its name says {wrong}, its folder another: move it back, or extract again"
            problems.suspect("image out of place", path, message)
    for folder, paths in strangers.items():
        message = (
            f"{root / folder} holds {len(paths)} images where the dataset has none: move them to where they belong"
        )
        problems.suspect("image out of place", folder, message)


def check_unlisted(
    name: str, root: Path, images: Iterable[str], tables: Sequence[pd.DataFrame], expected: int, problems: Problems
) -> str | None:
    """A problem for images that are on disk and in no list, by whole identities where none of their images is.

    SYSU-MM01 has `expected` such identities, which are harmless; where it is just these, returns a line that says so.
    """
    listed = set().union(*(set(table["path"]) for table in tables))
    tested = set().union(*(set(table["pid"][table["split"] == "test"]) for table in tables))
    seats = {path: seat for path in images if (seat := seat_of(name, path)) is not None}
    unlisted = [path for path in seats if path not in listed]
    if name == "sysu":
        strangers = Counter(seats[path].pid for path in unlisted)
        if len(strangers) == expected:
            count = f"{expected} identities ({strangers.total():,} images) are in no split file"
            return f"{count}, as in the published dataset" if expected else None
        among = f"{len(strangers)} identities are in no split file, where the intact dataset has {expected}"
        for pid, number in sorted(strangers.items()):
            message = f"identity {pid} ({number} images) is in no exp/*_id.txt; {among}"
            problems.suspect("unlisted identity", f"cam*/{pid:04d}", f"{root}: {message}")
        if len(strangers) < expected:
            problems.suspect("too few unlisted identities", "cam1..cam6", f"{root}: {among}: nothing reads them")
        return None
    known_folders = {path.rpartition("/")[0] for path in listed}
    for path in unlisted:
        folder = path.rpartition("/")[0]
        if name == "llcm" and seats[path].camera is None and seats[path].pid in tested:
            continue  # the originals of the test images
        if folder in known_folders:
            message = f"{root / path} is in no list that was read: remove it, or restore the lists"
            problems.suspect("unlisted image", path, message)
        else:
            message = (
                f"{root / folder} holds images, and no list that was read names one: remove it, or restore the lists"
            )
            problems.suspect("unlisted identity", folder, message)
    return None


def check_test_copies(root: Path, images: Iterable[str], table: pd.DataFrame, problems: Problems) -> None:
    """LLCM: a problem where `test_vis/` or `test_nir/` lacks images of a person that `vis/` or `nir/` has."""
    tested = set(table["pid"][table["split"] == "test"])
    originals: dict[str, list[str]] = defaultdict(list)
    copies: Counter[str] = Counter()
    for path in images:
        parts = PurePosixPath(path).parts
        if parts[0] in llcm.MODALITIES and (said := llcm.NAME.match(parts[-1])) and int(said[1]) in tested:
            originals[f"test_{parts[0]}/cam{int(said[2])}/{parts[1]}"].append(path)
        else:
            copies[path.rpartition("/")[0]] += 1
    for folder, paths in sorted(originals.items()):
        if len(paths) > copies[folder]:
            counts = (
                f"{copies[folder]} of the {len(paths)} images that {PurePosixPath(paths[0]).parent} has of this camera"
            )
            problems.suspect(
                "test copy is absent", folder, f"{root / folder} holds {counts}: extract the dataset again"
            )


def check_repeated_splits(root: Path, splits: Sequence[int], problems: Problems) -> None:
    """RegDB: a problem for every index file that equals that of an earlier split."""
    for half in ("train", "test"):
        for word in regdb.FOLDERS:
            first: dict[bytes, str] = {}
            for split in splits:
                name = f"idx/{half}_{word}_{split}.txt"
                try:
                    content = read_list(root / name)
                except OSError:
                    continue  # the reader has said so
                if (earlier := first.setdefault(content, name)) != name:
                    message = f"{root / name} equals {earlier}: restore both files from the dataset"
                    problems.suspect("split repeats another", name, message)


def check_permutations(root: Path, table: pd.DataFrame, problems: Problems) -> None:
    """SYSU-MM01: a problem where the file of official galleries is damaged or names images that are absent."""
    name, named = sysu.PERMUTATIONS, sysu.read_permutations(root, problems)
    if not named:
        return
    present: dict[tuple[int, int], set[str]] = defaultdict(set)
    for camera, pid, path in zip(table["camid"], table["pid"], table["path"], strict=True):
        present[camera, pid].add(PurePosixPath(path).stem)
    for camera in sysu.CAMERAS:
        for pid in sorted(set(table["pid"])):
            order, own = named.get((camera, pid), np.empty((0, 0), np.int64)), present[camera, pid]
            folder = f"cam{camera}/{pid:04d}"
            if own and (order.shape[0] < _SYSU_TRIALS or order.shape[1] == 0):
                message = f"{root / name} has {order.shape[0]} of {_SYSU_TRIALS} trials for {folder}: restore it"
                problems.suspect("official galleries are damaged", f"{name}: {folder}", message)
            for number in sorted({f"{number:04d}" for number in order.ravel()} - own):
                message = f"{root / folder}/{number}.jpg is named by {name} and is not there: extract the dataset again"
                problems.suspect("listed image is absent", f"{folder}/{number}.jpg", message)


def seat_of(name: str, path: str) -> Seat | None:
    """What the folder of an image says, or None where no image of the dataset belongs."""
    parts = PurePosixPath(path).parts
    in_folder_of_one = len(parts) == 3 and re.fullmatch(r"\d+" if name == "regdb" else r"\d{4}", parts[1]) is not None
    if name == "sysu":
        camera = int(parts[0].removeprefix("cam"))
        modality = "ir" if camera in sysu.INFRARED_CAMERAS else "vis"
        return Seat(int(parts[1]), modality, camera) if in_folder_of_one else None
    if name == "regdb":
        return Seat(int(parts[1]), "vis" if parts[0] == "Visible" else "ir", None) if in_folder_of_one else None
    modality, cameras = llcm.MODALITIES[parts[0].removeprefix("test_")]
    if not parts[0].startswith("test_"):
        return Seat(int(parts[1]), modality, None) if in_folder_of_one else None
    number = re.fullmatch(r"cam(\d+)/\d{4}", "/".join(parts[1:-1]))
    return Seat(int(parts[2]), modality, int(number[1])) if number and int(number[1]) in cameras else None


def _regdb_mismatch(file: str, seat: Seat) -> str | None:
    said = _REGDB_NAME.search(PurePosixPath(file).stem)
    if said is None:
        return None
    if {"v": "vis", "t": "ir"}[said[1]] != seat.modality:
        return "visible" if said[1] == "v" else "thermal"
    return f"identity {said[2]}" if int(said[2]) != seat.pid else None


def _llcm_mismatch(file: str, seat: Seat) -> str | None:
    said = llcm.NAME.match(file)
    if said is None:
        return None
    if int(said[1]) != seat.pid:
        return f"identity {said[1]}"
    if seat.camera is not None and int(said[2]) != seat.camera:
        return f"camera {int(said[2])}"
    return said[3] if said[3] and llcm.MODALITIES[said[3]][0] != seat.modality else None
