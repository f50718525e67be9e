"""RegDB (Nguyen et al., Sensors 2017) from its own index files: `idx/{train,test}_{visible,thermal}_{1..10}.txt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bdlf.datasets.problems import Problems
from bdlf.datasets.tree import Row, read_index, require_folders, require_images, require_one_label_each
from bdlf.system.errors import InputError

SPLITS = range(1, 11)
FOLDERS = {"visible": ("Visible", "vis", 1), "thermal": ("Thermal", "ir", 2)}
"""Word in an index file's name: folder, modality, camera."""


def read_regdb(
    root: Path, split: int, halves: Sequence[str], problems: Problems
) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows of `halves`, of 'train' and 'test', of one of the ten splits, and what was passed over.

    The pid is the number of the identity's folder, not the label on the line: labels start at 0 in the training half
    and again in the test half, for different people, and differ from split to split; the folder's number is one
    person's everywhere. Labels are checked to agree with the folders. The camera is 1 for visible, 2 for infrared.
    """
    if split not in SPLITS:
        raise InputError(f"regdb has the splits {SPLITS[0]} to {SPLITS[-1]}, not {split}: set dataset.split to one")
    missing = require_folders(root, ["idx", *(folder for folder, _, _ in FOLDERS.values())], problems)
    rows_of: dict[str, list[Row]] = {half: [] for half in halves}
    passed_over: list[str] = []
    if "idx" in missing:
        return rows_of, passed_over
    for half, rows in rows_of.items():
        listed = {
            word: read_index(root, f"idx/{half}_{word}_{split}.txt", folder, problems)
            for word, (folder, _, _) in FOLDERS.items()
        }
        lines = [line for part in listed.values() for line in part]
        require_one_label_each(root, lines, problems)
        present, strays = require_images(root, lines, problems)
        passed_over += strays
        for word, (_, modality, camera) in FOLDERS.items():
            rows += [Row(line.path, line.pid, camera, modality) for line in listed[word] if line.path in present]
        visible, thermal = ({line.pid for line in listed[word]} for word in FOLDERS)
        if visible and thermal and visible != thermal:
            where = f"idx/{half}_*_{split}.txt"
            some = ", ".join(map(str, sorted(visible ^ thermal)[:5]))
            message = f"{root / where}: visible and thermal name different people ({some}): restore both files"
            problems.suspect("lists name different people", where, message)
    return rows_of, passed_over
