"""SYSU-MM01 (Wu et al., ICCV 2017) from its own folders: `cam1..cam6/<4-digit identity>/<4-digit number>.jpg`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bdlf.data.problems import Problems
from bdlf.data.tree import Row, read_identities, require_folders, scan

INFRARED_CAMERAS = (3, 6)
CAMERAS = (1, 2, 3, 4, 5, 6)


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
