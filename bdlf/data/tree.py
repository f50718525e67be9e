"""What the readers of the real datasets share: walking image folders, reading id lines and index files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bdlf.data.problems import Problems
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
    """`file:line`, the file relative to the root."""


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image: by its suffix, in any case, and not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def scan(root: Path, folder: str, problems: Problems) -> tuple[list[str], list[str]]:
    """Sorted paths, relative to `root`, of the images directly in `root/folder` and of all else that lies there.

    An absent folder holds nothing. Problems: the folder cannot be read, or something named like an image is no file.
    """
    images, others = [], []
    try:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                if not is_image(entry.name):
                    others.append(path)
                elif _is_file(entry):
                    images.append(path)
                else:
                    report_no_file(root, path, problems)
    except OSError as error:
        report_unreadable(root, folder, error, problems)
    return sorted(images), sorted(others)


def report_unreadable(root: Path, folder: str, error: OSError, problems: Problems) -> None:
    """A problem, unless `error` says that there is no such folder."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        message = f"{root / folder} cannot be read ({error.strerror}): make it readable, or extract the dataset again"
        problems.report("unreadable folder", folder, message)


def report_no_file(root: Path, path: str, problems: Problems) -> None:
    """A problem: `path` is a folder, or a link that leads to no file."""
    message = f"{root / path} is named like an image but is no file: restore or remove it"
    problems.report("not a file", path, message)


def require_folders(root: Path, folders: Sequence[str], problems: Problems) -> list[str]:
    """The `folders` that `root` lacks, each of which is a problem."""
    missing = [folder for folder in folders if not os.path.isdir(root / folder)]
    for folder in missing:
        problems.report(
            "missing folder",
            folder,
            f"{root} lacks the folder {folder} ({len(missing)} of {len(folders)} are missing): "
            "extract the dataset again, or point dataset.root at it",
        )
    return missing


def read_identities(root: Path, name: str, problems: Problems) -> list[int]:
    """The identity numbers, each once, of a file that holds them on one line, separated by commas.

    Problems: the file is absent or empty, has a further line, something that is no number, or a number twice.
    """
    lines = _read_lines(root, name, problems)
    if len(lines) > 1:
        where = f"{name}:{lines[1][0]}"
        message = f"{root / where}: a second line, where one line of identities is expected"
        problems.report("line of wrong form", where, message)
    found: list[tuple[int, int]] = []
    for number, line in lines:
        for text in map(str.strip, line.split(",")):
            if text.isdecimal():
                found.append((int(text), number))
            else:
                problems.report(
                    "line of wrong form",
                    f"{name}:{number}: {text!r}",
                    f"{root / name}:{number}: {text!r} is no identity number: "
                    "restore the file from the dataset (numbers separated by commas)",
                )
    times = Counter(pid for pid, _ in found)
    number_of = dict(reversed(found))
    for pid in sorted(pid for pid, count in times.items() if count > 1):
        where = f"{name}:{number_of[pid]}"
        message = f"{root / where}: identity {pid} is named twice: restore the file"
        problems.report("identity named twice", f"{where}: identity {pid}", message)
    return list(times)


def read_index(root: Path, name: str, folder: str, problems: Problems) -> list[IndexLine]:
    """The lines `path label` of an index file, whose paths must be `folder/<identity number>/<image>`.

    Problems: the file is absent or empty, a line is not of that form (so that no path leaves `root`), or an image is
    named twice. Such a line is left out.
    """
    result: list[IndexLine] = []
    seen: dict[str, int] = {}
    for number, text in _read_lines(root, name, problems):
        where = f"{name}:{number}"
        parts = text.rsplit(maxsplit=1)
        if len(parts) != 2 or not parts[1].isdecimal():
            message = f"{root / where}: {text!r} is not a path and a label: restore the file from the dataset"
            problems.report("line of wrong form", where, message)
            continue
        path = PurePosixPath(parts[0])
        if path.is_absolute() or ".." in path.parts:
            message = f"{root / where}: {parts[0]!r} leaves the dataset's folder: use paths relative to it"
            problems.report("path leaves the root", where, message)
        elif (
            len(path.parts) != 3 or path.parts[0] != folder or not path.parts[1].isdecimal() or not is_image(path.name)
        ):
            message = f"{root / where}: {parts[0]!r} is not of the form {folder}/<identity>/<image>: restore the file"
            problems.report(
                "image out of place" if os.path.isfile(root / path) else "line of wrong form", where, message
            )
        elif str(path) in seen:
            message = f"{root / where}: {path} is on line {seen[str(path)]} already: restore the file"
            problems.report("image listed twice", where, message)
        else:
            seen[str(path)] = number
            result.append(IndexLine(str(path), int(path.parts[1]), int(parts[1]), where))
    return result


def require_one_label_each(root: Path, lines: Iterable[IndexLine], problems: Problems) -> None:
    """A problem unless labels and identity folders of one half of a split correspond one to one."""
    label_of: dict[int, int] = {}
    pid_of: dict[int, int] = {}
    for line in lines:
        label, pid = label_of.setdefault(line.pid, line.label), pid_of.setdefault(line.label, line.pid)
        if label != line.label or pid != line.pid:
            before = f"folder {line.pid} had label {label}" if label != line.label else f"that label was folder {pid}'s"
            problems.report(
                "label does not match the folder",
                line.where,
                f"{root / line.where}: folder {line.pid} has label {line.label}, but {before}: restore the file",
            )


def require_images(root: Path, lines: Sequence[IndexLine], problems: Problems) -> tuple[set[str], list[str]]:
    """Paths of the listed images that are there, and what else than images lies in their folders.

    A listed image that is absent is a problem.
    """
    present: set[str] = set()
    others: list[str] = []
    for folder in sorted({line.path.rpartition("/")[0] for line in lines}):
        images, strays = scan(root, folder, problems)
        present.update(images)
        others += strays
    absent = [line for line in lines if line.path not in present]
    for line in absent:
        problems.report(
            "listed image is absent",
            line.path,
            f"{root / line.where}: {root / line.path} does not exist: extract the dataset again",
            strict=f"{root / line.where}: {root / line.path} does not exist ({len(absent)} of {len(lines)} listed "
            "images are missing): extract the dataset again",
        )
    return present, others


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


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _read_lines(root: Path, name: str, problems: Problems) -> list[tuple[int, str]]:
    """The lines of a text file that hold something, with their numbers from 1. That there is none is a problem."""
    file = root / name
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        message = f"{file} cannot be read ({reason}): it comes with the dataset, extract it again"
        problems.report("missing list" if isinstance(error, FileNotFoundError) else "unreadable list", name, message)
        return []
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        problems.report("empty list", name, f"{file} is empty: it comes with the dataset, extract it again")
    return lines
