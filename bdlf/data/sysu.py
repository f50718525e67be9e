"""SYSU-MM01 (Wu et al., ICCV 2017) from its own folders: `cam1..cam6/<4-digit identity>/<4-digit number>.jpg`."""

from __future__ import annotations

from pathlib import Path

from bdlf.data.tree import Row, read_identities, require_folders, scan
from bdlf.errors import InputError

INFRARED_CAMERAS = (3, 6)
CAMERAS = (1, 2, 3, 4, 5, 6)


def read_sysu(root: Path) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows of the splits 'train', 'val' and 'test' (`exp/{train,val,test}_id.txt`), and what was passed over.

    A camera without a folder for an identity never saw that person, which is common. Raises `InputError` where a camera
    folder is absent, an identity is in two splits, or it has no image at all.
    """
    require_folders(root, ["exp", *(f"cam{camera}" for camera in CAMERAS)])
    splits: dict[str, list[Row]] = {}
    passed_over: list[str] = []
    taken: dict[int, str] = {}
    for split in ("train", "val", "test"):
        name = f"exp/{split}_id.txt"
        rows: list[Row] = []
        for pid in read_identities(root, name):
            if pid in taken:
                raise InputError(f"{root / name}: identity {pid} is in {taken[pid]} too: restore both files")
            taken[pid] = name
            found = len(rows)
            for camera in CAMERAS:
                images, strays = scan(root, f"cam{camera}/{pid:04d}")
                modality = "ir" if camera in INFRARED_CAMERAS else "vis"
                rows += [Row(path, pid, camera, modality) for path in images]
                passed_over += strays
            if len(rows) == found:
                raise InputError(
                    f"{root / name}: identity {pid} has no image in any cam*/{pid:04d}: extract the dataset again"
                )
        splits[split] = rows
    return splits, passed_over
