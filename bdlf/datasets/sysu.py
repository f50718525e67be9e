"""SYSU-MM01 (Wu et al., ICCV 2017) from its own folders: `cam1..cam6/<4-digit identity>/<4-digit number>.jpg`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bdlf.datasets.problems import Problems
from bdlf.datasets.tree import Row, read_identities, require_folders, scan

INFRARED_CAMERAS = (3, 6)
CAMERAS = (1, 2, 3, 4, 5, 6)
PERMUTATIONS = "exp/rand_perm_cam.mat"
"""The official galleries, below the dataset's root; some copies lack them."""


def read_sysu(root: Path, splits: Sequence[str], problems: Problems) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows of `splits`, of 'train', 'val' and 'test' (`exp/{train,val,test}_id.txt`), and what was passed over.

    A camera without a folder for an identity never saw that person, which is common. Problems: a camera folder is
    absent, an identity is in two splits (it is left in the first), or it has no image at all.
    """
    missing = require_folders(root, ["exp", *(f"cam{camera}" for camera in CAMERAS)], problems)
    rows_of: dict[str, list[Row]] = {split: [] for split in splits}
    passed_over: list[str] = []
    taken: dict[int, str] = {}
    for split, rows in rows_of.items():
        name = f"exp/{split}_id.txt"
        for pid in read_identities(root, name, problems) if "exp" not in missing else ():
            if pid in taken:
                message = f"{root / name}: identity {pid} is in {taken[pid]} too: restore both files"
                problems.report("identity in two splits", f"identity {pid}", message)
                continue
            taken[pid] = name
            found = len(rows)
            for camera in CAMERAS:
                images, strays = scan(root, f"cam{camera}/{pid:04d}", problems)
                modality = "ir" if camera in INFRARED_CAMERAS else "vis"
                rows += [Row(path, pid, camera, modality) for path in images]
                passed_over += strays
            if len(rows) == found:
                message = f"{root / name}: identity {pid} has no image in any cam*/{pid:04d}: extract the dataset again"
                problems.report("identity without any image", f"{name}: identity {pid}", message)
    return rows_of, passed_over


def read_permutations(root: Path, problems: Problems) -> dict[tuple[int, int], NDArray[np.int64]]:
    """(camera, identity): the cell rand_perm_cam{camera}{identity} of `PERMUTATIONS`, (trials, images) file numbers.

    Whole numbers that are stored as floats are cast. Problems: the file holds no such cells (nothing is returned), or a
    cell is no matrix of whole numbers (it is left out).
    """
    from scipy.io import loadmat  # of no use to most commands

    name = PERMUTATIONS
    try:
        if not (root / name).is_file():
            raise FileNotFoundError("no such file")
        cameras = [camera.ravel() for camera in loadmat(root / name)["rand_perm_cam"].ravel()]
        if len(cameras) != len(CAMERAS):
            raise ValueError(f"{len(cameras)} of {len(CAMERAS)} cameras")
        for camera, cells in zip(CAMERAS, cameras, strict=True):
            if cells.dtype != object or not cells.size:
                raise ValueError(f"camera {camera} has no cells")
    except Exception as error:  # SciPy raises whatever the damaged bytes lead it to
        message = f"{root / name} cannot be read as SYSU-MM01's rand_perm_cam ({error!r}): restore it"
        problems.report("official galleries are damaged", name, message)
        return {}
    orders: dict[tuple[int, int], NDArray[np.int64]] = {}
    for camera, cells in zip(CAMERAS, cameras, strict=True):
        for pid, cell in enumerate(cells, start=1):
            order = _whole_numbers(cell)
            if order is None:
                message = (
                    f"{root / name}: camera {camera}, identity {pid}: no matrix of whole numbers: restore the file"
                )
                problems.report("official galleries are damaged", f"{name}: cam{camera}/{pid:04d}", message)
            else:
                orders[camera, pid] = order
    return orders


def _whole_numbers(cell: object) -> NDArray[np.int64] | None:
    if not (isinstance(cell, np.ndarray) and cell.ndim == 2 and cell.dtype.kind in "iuf"):
        return None
    with np.errstate(invalid="ignore"):
        numbers = cell.astype(np.int64)
    return numbers if np.array_equal(numbers, cell) else None
