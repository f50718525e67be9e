"""LLCM (Zhang and Wang, CVPR 2023) from its own files: `idx/`, `vis/` and `nir/` to train, `test_vis/`, `test_nir/`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from bdlf.datasets.problems import Problems
from bdlf.datasets.tree import (
    Row,
    read_identities,
    read_index,
    require_folders,
    require_images,
    require_one_label_each,
    scan,
)

MODALITIES = {"vis": ("vis", range(1, 10)), "nir": ("ir", (1, 2, 4, 5, 6, 7, 8, 9))}
"""Word in folders' names: modality, cameras."""
NAME = re.compile(r"([0-9]{1,9})_c([0-9]{1,9})_(?:.*_(vis|nir)\.)?")
"""The start of an image's name: identity, camera, and the modality where it is named."""


def read_llcm(root: Path, splits: Sequence[str], problems: Problems) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows of `splits`: 'train' (`idx/train_{vis,nir}.txt`) and 'test' (`idx/test_id.txt`), and what was passed over.

    The pid is the number of the identity's folder in both halves. A training image's camera is in its name
    (`0001_c05_s183725_f15302_vis.jpg`); a test image is taken from `test_{vis,nir}/cam<camera>/<identity>/`, where the
    published protocol looks for it, not from its copy in `vis/` or `nir/`.
    """
    cameras = [f"test_{word}/cam{camera}" for word, (_, numbers) in MODALITIES.items() for camera in numbers]
    folders = ["idx", *(MODALITIES if "train" in splits else ()), *(cameras if "test" in splits else ())]
    rows_of: dict[str, list[Row]] = {split: [] for split in splits}
    passed_over: list[str] = []
    if "idx" in require_folders(root, folders, problems):
        return rows_of, passed_over
    for split in splits:
        rows_of[split], strays = (_read_train if split == "train" else _read_test)(root, problems)
        passed_over += strays
    return rows_of, passed_over


def _read_train(root: Path, problems: Problems) -> tuple[list[Row], list[str]]:
    lines, rows = [], []
    for word, (modality, _) in MODALITIES.items():
        listed = read_index(root, f"idx/train_{word}.txt", word, problems)
        for line in listed:
            name = NAME.match(PurePosixPath(line.path).name)
            if name is None:
                message = f"no camera in the name {line.path}: names are <identity>_c<camera>_..., restore them"
                problems.report("image name", line.where, f"{root / line.where}: {message}")
                continue
            rows.append(Row(line.path, line.pid, int(name[2]), modality))
        lines += listed
    require_one_label_each(root, lines, problems)
    present, strays = require_images(root, lines, problems)
    return [row for row in rows if row.path in present], strays


def _read_test(root: Path, problems: Problems) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    passed_over: list[str] = []
    name = "idx/test_id.txt"
    for pid in read_identities(root, name, problems):
        found = len(rows)
        for word, (modality, cameras) in MODALITIES.items():
            for camera in cameras:
                images, strays = scan(root, f"test_{word}/cam{camera}/{pid:04d}", problems)
                rows += [Row(path, pid, camera, modality) for path in images]
                passed_over += strays
        if len(rows) == found:
            message = f"identity {pid} has no image in test_vis/ and test_nir/: extract the dataset again"
            problems.report("identity without any image", f"{name}: identity {pid}", f"{root / name}: {message}")
    return rows, passed_over
