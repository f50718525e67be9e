"""RegDB (Nguyen et al., Sensors 2017) from its own index files: `idx/{train,test}_{visible,thermal}_{1..10}.txt`."""

from __future__ import annotations

from pathlib import Path

from bdlf.data.tree import Row, read_index, require_folders, require_images, require_one_label_each
from bdlf.errors import InputError

SPLITS = range(1, 11)
_FOLDERS = {"visible": ("Visible", "vis", 1), "thermal": ("Thermal", "ir", 2)}


def read_regdb(root: Path, split: int) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows of 'train' and 'test' of one of the ten splits, and what was passed over.

    The pid is the number of the identity's folder, not the label on the line: labels start at 0 in the training half
    and again in the test half, for different people, and differ from split to split; the folder's number is one
    person's everywhere. Labels are checked to agree with the folders. The camera is 1 for visible, 2 for infrared.
    """
    if split not in SPLITS:
        raise InputError(f"regdb has the splits {SPLITS[0]} to {SPLITS[-1]}, not {split}: set dataset.split to one")
    require_folders(root, ["idx", *(folder for folder, _, _ in _FOLDERS.values())])
    halves: dict[str, list[Row]] = {}
    passed_over: list[str] = []
    for half in ("train", "test"):
        lines, rows = [], []
        for word, (folder, modality, camera) in _FOLDERS.items():
            listed = read_index(root, f"idx/{half}_{word}_{split}.txt", folder)
            lines += listed
            rows += [Row(line.path, line.pid, camera, modality) for line in listed]
        require_one_label_each(lines)
        passed_over += require_images(root, lines)
        halves[half] = rows
    return halves, passed_over
