"""What the readers of the datasets share: finding the images of a folder, reading lists of identities and images."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from bdlf.datasets.problems import Problems
from bdlf.system.errors import InputError
from bdlf.system.wording import shortened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
_NUMBER = re.compile(r"[0-9]{1,9}")
"""The number of an identity, or a label. No dataset has longer ones."""
_FOUR_DIGITS = re.compile(r"[0-9]{1,4}")
"""The number of an identity whose folder's name has four digits."""
_LONGEST_LIST = 8 << 20  # bytes; the longest list of a dataset has 1 MB
_QUOTED = 100  # how many letters of a wrong line a message repeats
_MOST_WRONG = 1000  # after so many wrong lines or numbers, the rest of a list is not read


class IndexLine(NamedTuple):
    """One line of an index file: `path label`, where the path is `<folder>/<identity number>/<image>`."""

    path: str
    pid: int
    label: int
    where: str
    """`file:line`, the file relative to the root."""


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image: its suffix says so, in any case, and it is not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def scan(root: Path, folder: str, problems: Problems) -> tuple[list[str], list[str]]:
    """The sorted paths, relative to `root`, of the images directly in `root/folder`, and of everything else in it.

    An absent folder counts as empty. Problems: the folder cannot be read, or something named like an image is no file.
    """
    images, others = [], []
    try:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                if entry.name != entry.name.encode(errors="replace").decode():
                    message = f"{root / path}: the name is not UTF-8: rename the file, or extract the dataset again"
                    problems.report("file name", path, message)
                elif not is_image(entry.name):
                    others.append(path)
                elif _is_file(entry):
                    images.append(path)
                else:
                    report_no_file(root, path, problems)
    except OSError as error:
        report_unreadable(root, folder, error, problems)
    return sorted(images), sorted(others)


def report_unreadable(root: Path, folder: str, error: OSError, problems: Problems) -> None:
    """Reports that a folder cannot be read, unless `error` says that there is no such folder."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        message = f"{root / folder} cannot be read ({error.strerror}): make it readable, or extract the dataset again"
        problems.report("unreadable folder", folder, message)


def report_no_file(root: Path, path: str, problems: Problems) -> None:
    """Reports that `path`, which is named like an image, is a folder, or a link that leads to no file."""
    message = f"{root / path} is named like an image but is no file: restore or remove it"
    problems.report("not a file", path, message)


def require_folders(root: Path, folders: Sequence[str], problems: Problems) -> list[str]:
    """Reports each of the `folders` that `root` lacks, and returns them."""
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
    """Reads a file that holds identity numbers on one line, separated by commas. Returns each number once.

    Problems: the file is absent or empty, or it has a second line, something that is no number, or a number twice.
    """
    lines = _read_lines(root, name, problems)
    if len(lines) > 1:
        where = f"{name}:{lines[1][0]}"
        message = f"{root / where}: a second line, where one line of identities is expected"
        problems.report("line of wrong form", where, message)
    found: list[tuple[int, int]] = []
    wrong = 0
    for number, text in ((number, text.strip()) for number, line in lines for text in line.split(",")):
        if _FOUR_DIGITS.fullmatch(text):
            found.append((int(text), number))
        elif wrong == _MOST_WRONG:
            _report_many(root, name, problems)
            break
        else:
            wrong += 1
            word = repr(shortened(text, _QUOTED))
            problems.report(
                "line of wrong form",
                f"{name}:{number}: {word}",
                f"{root / name}:{number}: {word} is no identity number: "
                "restore the file from the dataset (numbers of up to 4 digits, separated by commas)",
            )
    times = Counter(pid for pid, _ in found)
    number_of = dict(reversed(found))
    for pid in sorted(pid for pid, count in times.items() if count > 1):
        where = f"{name}:{number_of[pid]}"
        message = f"{root / where}: identity {pid} is named twice: restore the file"
        problems.report("identity named twice", f"{where}: identity {pid}", message)
    return list(times)


def read_index(root: Path, name: str, folder: str, problems: Problems) -> list[IndexLine]:
    """Reads the lines `path label` of an index file. The paths must be `folder/<identity number>/<image>`.

    Problems: the file is absent or empty, a line does not have that form, or an image is named twice. Such a line is
    left out, so that no path leads out of `root`.
    """
    result: list[IndexLine] = []
    seen: dict[str, int] = {}
    for place, (number, text) in enumerate(_read_lines(root, name, problems)):
        if place - len(result) > _MOST_WRONG:
            _report_many(root, name, problems)
            break
        where = f"{name}:{number}"
        parts = text.rsplit(maxsplit=1)
        if len(parts) != 2 or not _NUMBER.fullmatch(parts[1]):
            quoted = repr(shortened(text, _QUOTED))
            message = f"{root / where}: {quoted} is not a path and a label: restore the file from the dataset"
            problems.report("line of wrong form", where, message)
            continue
        path, quoted = PurePosixPath(parts[0]), repr(shortened(parts[0], _QUOTED))
        if path.is_absolute() or ".." in path.parts:
            message = f"{root / where}: {quoted} leaves the dataset's folder: use paths relative to it"
            problems.report("path leaves the root", where, message)
        elif (
            len(path.parts) != 3
            or path.parts[0] != folder
            or not _NUMBER.fullmatch(path.parts[1])
            or not is_image(path.name)
        ):
            message = f"{root / where}: {quoted} is not of the form {folder}/<identity>/<image>: restore the file"
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


def _report_many(root: Path, name: str, problems: Problems) -> None:
    message = f"{root / name}: more than {_MOST_WRONG:,} lines or numbers are wrong, the rest is not read: restore it"
    problems.report("list of another kind", name, message)


def require_one_label_each(root: Path, lines: Iterable[IndexLine], problems: Problems) -> None:
    """Reports each line whose label and folder contradict an earlier line.

    In one half of a split, labels and identity folders must correspond one to one.
    """
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
    """The paths of all images in the folders of the listed ones, and of everything else in these folders.

    Reports each listed image that is absent.
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
    """(N, 2) int64: size in bytes and time of last change in ns of each file. Raises `InputError` if one is absent."""
    import numpy as np

    stats = np.empty((len(paths), 2), np.int64)
    for row, path in enumerate(paths):
        try:
            status = os.stat(f"{root}/{path}")
        except OSError as error:
            raise InputError(f"{root / path} cannot be read ({error.strerror}): extract the dataset again") from error
        stats[row] = status.st_size, status.st_mtime_ns
    return stats


def read_list(file: Path) -> bytes:
    """The content of a list of the dataset. Raises OSError for what is no file, or is far too long for a list."""
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait forever
        raise OSError(errno.EINVAL, "not a file")
    if status.st_size > _LONGEST_LIST:
        raise OSError(errno.EFBIG, f"{status.st_size:,} bytes, where lists have at most {_LONGEST_LIST:,}")
    return file.read_bytes()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _read_lines(root: Path, name: str, problems: Problems) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1. Reports a file without any."""
    file = root / name
    try:
        text = read_list(file).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        message = f"{file} cannot be read ({reason}): it comes with the dataset, extract it again"
        problems.report("missing list" if isinstance(error, FileNotFoundError) else "unreadable list", name, message)
        return []
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        problems.report("empty list", name, f"{file} is empty: it comes with the dataset, extract it again")
    return lines
