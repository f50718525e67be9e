"""What the readers of the real datasets share: walking image folders, reading id lines and index files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bdlf.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


class Row(NamedTuple):
    """One image of a listing, without its split."""

    path: str
    pid: int
    camid: int
    modality: str


class IndexLine(NamedTuple):
    """One line of an index file: `path label`, where the path is `<folder>/<identity number>/<image>`."""

    path: str
    pid: int
    label: int
    where: str
    """`file:line`, for messages."""


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image: by its suffix, in any case, and not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def scan(root: Path, folder: str) -> tuple[list[str], list[str]]:
    """Sorted paths, relative to `root`, of the images directly in `root/folder` and of all else that lies there.

    An absent folder holds nothing. Raises `InputError` for something that is named like an image and is no file.
    """
    images, others = [], []
    try:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                if not is_image(entry.name):
                    others.append(path)
                elif entry.is_file():
                    images.append(path)
                else:
                    raise InputError(f"{root / path} is named like an image but is no file: restore or remove it")
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    return sorted(images), sorted(others)


def require_folders(root: Path, folders: Sequence[str]) -> None:
    """Raises `InputError` that names the first of `folders` that `root` lacks, and how many it lacks."""
    missing = [folder for folder in folders if not (root / folder).is_dir()]
    if missing:
        raise InputError(
            f"{root} lacks the folder {missing[0]} ({len(missing)} of {len(folders)} are missing): "
            "extract the dataset again, or point dataset.root at it"
        )


def read_identities(root: Path, name: str) -> list[int]:
    """The identity numbers of a file that holds them on one line, separated by commas.

    Raises `InputError` where the file is absent or empty, has a further line, something that is no number, or a
    number twice.
    """
    lines = _read_lines(root, name)
    first_number, first = lines[0]
    if len(lines) > 1:
        raise InputError(f"{root / name}:{lines[1][0]}: a second line, where one line of identities is expected")
    identities = []
    for text in first.split(","):
        if not text.strip().isdecimal():
            raise InputError(
                f"{root / name}:{first_number}: {text.strip()!r} is no identity number: "
                "restore the file from the dataset (numbers separated by commas)"
            )
        identities.append(int(text))
    twice = sorted({pid for pid in identities if identities.count(pid) > 1})
    if twice:
        raise InputError(f"{root / name}:{first_number}: identity {twice[0]} is named twice: restore the file")
    return identities


def read_index(root: Path, name: str, folder: str) -> list[IndexLine]:
    """The lines `path label` of an index file, whose paths must be `folder/<identity number>/<image>`.

    Raises `InputError` where the file is absent or empty, a line is not of that form (so that no path leaves `root`),
    or an image is named twice.
    """
    result: list[IndexLine] = []
    seen: dict[str, int] = {}
    for number, text in _read_lines(root, name):
        where = f"{root / name}:{number}"
        parts = text.rsplit(maxsplit=1)
        if len(parts) != 2 or not parts[1].isdecimal():
            raise InputError(f"{where}: {text!r} is not a path and a label: restore the file from the dataset")
        path = PurePosixPath(parts[0])
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{where}: {parts[0]!r} leaves the dataset's folder: use paths relative to it")
        if len(path.parts) != 3 or path.parts[0] != folder or not path.parts[1].isdecimal() or not is_image(path.name):
            raise InputError(f"{where}: {parts[0]!r} is not of the form {folder}/<identity>/<image>: restore the file")
        if str(path) in seen:
            raise InputError(f"{where}: {path} is on line {seen[str(path)]} already: restore the file")
        seen[str(path)] = number
        result.append(IndexLine(str(path), int(path.parts[1]), int(parts[1]), where))
    return result


def require_one_label_each(lines: Iterable[IndexLine]) -> None:
    """Raises `InputError` unless labels and identity folders of one half of a split correspond one to one."""
    label_of: dict[int, int] = {}
    pid_of: dict[int, int] = {}
    for line in lines:
        label, pid = label_of.setdefault(line.pid, line.label), pid_of.setdefault(line.label, line.pid)
        if label != line.label or pid != line.pid:
            before = f"folder {line.pid} had label {label}" if label != line.label else f"that label was folder {pid}'s"
            raise InputError(f"{line.where}: folder {line.pid} has label {line.label}, but {before}: restore the file")


def require_images(root: Path, lines: Sequence[IndexLine]) -> list[str]:
    """Raises `InputError` where a listed image is absent; returns what else than images lies in their folders."""
    folders = sorted({line.path.rpartition("/")[0] for line in lines})
    present: set[str] = set()
    others: list[str] = []
    for folder in folders:
        images, strays = scan(root, folder)
        present.update(images)
        others += strays
    absent = [line for line in lines if line.path not in present]
    if absent:
        raise InputError(
            f"{absent[0].where}: {root / absent[0].path} does not exist ({len(absent)} of {len(lines)} listed images "
            "are missing): extract the dataset again"
        )
    return others


def file_stats(root: Path, paths: Sequence[str]) -> NDArray[np.int64]:
    """(N, 2): size in bytes and time of last change in ns of each file. Raises `InputError` where one is absent."""
    stats = np.empty((len(paths), 2), np.int64)
    for row, path in enumerate(paths):
        try:
            status = os.stat(f"{root}/{path}")
        except OSError as error:
            raise InputError(f"{root / path} cannot be read ({error.strerror}): extract the dataset again") from error
        stats[row] = status.st_size, status.st_mtime_ns
    return stats


def _read_lines(root: Path, name: str) -> list[tuple[int, str]]:
    """The lines of a text file that hold something, with their numbers from 1; at least one, or `InputError`."""
    file = root / name
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{file} cannot be read ({reason}): it comes with the dataset, extract it again") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise InputError(f"{file} is empty: it comes with the dataset, extract it again")
    return lines
