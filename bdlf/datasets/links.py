"""Finds links that lead out of a dataset's folder. They could make any file of the machine part of the dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bdlf.datasets.description import Dataset
from bdlf.datasets.problems import Problems

_DEEPEST = 5  # folders below the root


def links_out(root: Path, folders: Iterable[str]) -> list[str]:
    """Sorted paths, relative to `root`, of the links in `folders` whose targets do not lie below the real `root`."""
    home = os.path.realpath(root)

    def is_out(path: str) -> bool:
        real = os.path.realpath(root / path)
        return real != home and not real.startswith(home.rstrip(os.sep) + os.sep)

    return sorted(path for path in _links(root, folders) if is_out(path))


def refuse_links_out(root: Path, dataset: Dataset, problems: Problems) -> None:
    """A problem for every link in the dataset's folders that leads out of `root`."""
    found = links_out(root, (*dataset.list_folders, *dataset.image_folders))
    for path in found:
        problems.report(
            "link leads out of the root",
            path,
            f"{root / path} leads out of the dataset's folder ({len(found)} such links), to "
            f"{os.path.realpath(root / path)}: copy it there, or allow it with dataset.follow_links=true",
        )


def _links(root: Path, folders: Iterable[str]) -> Iterator[str]:
    waiting = []
    for folder in folders:
        if os.path.islink(root / folder):
            yield folder
        else:
            waiting.append(folder)
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}"
                    if entry.is_symlink():
                        yield path
                    elif entry.is_dir(follow_symlinks=False) and path.count("/") < _DEEPEST:
                        waiting.append(path)
        except OSError:  # the readers report a folder that is absent or unreadable
            continue
