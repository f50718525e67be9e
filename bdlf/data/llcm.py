"""LLCM (Zhang and Wang, CVPR 2023) from its own files: `idx/`, `vis/` and `nir/` to train, `test_vis/`, `test_nir/`."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from bdlf.data.tree import (
    Row,
    read_identities,
    read_index,
    require_folders,
    require_images,
    require_one_label_each,
    scan,
)
from bdlf.errors import InputError

_MODALITIES = {"vis": ("vis", range(1, 10)), "nir": ("ir", (1, 2, 4, 5, 6, 7, 8, 9))}
_CAMERA = re.compile(r"\d+_c(\d+)_")


def read_llcm(root: Path) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows of 'train' (`idx/train_{vis,nir}.txt`) and 'test' (`idx/test_id.txt`), and what was passed over.

    The pid is the number of the identity's folder in both halves. A training image's camera is in its name
    (`0001_c05_s183725_f15302_vis.jpg`); a test image is taken from `test_{vis,nir}/cam<camera>/<identity>/`, where the
    published protocol looks for it, not from its copy in `vis/` or `nir/`.
    """
    cameras = [f"test_{word}/cam{camera}" for word, (_, numbers) in _MODALITIES.items() for camera in numbers]
    require_folders(root, ["idx", *_MODALITIES, *cameras])
    train, strays = _read_train(root)
    test, more_strays = _read_test(root)
    return {"train": train, "test": test}, strays + more_strays


def _read_train(root: Path) -> tuple[list[Row], list[str]]:
    lines, rows = [], []
    for word, (modality, _) in _MODALITIES.items():
        listed = read_index(root, f"idx/train_{word}.txt", word)
        for line in listed:
            camera = _CAMERA.match(PurePosixPath(line.path).name)
            if camera is None:
                raise InputError(
                    f"{line.where}: no camera in the name {line.path}: names are <identity>_c<camera>_..., restore them"
                )
            rows.append(Row(line.path, line.pid, int(camera[1]), modality))
        lines += listed
    require_one_label_each(lines)
    return rows, require_images(root, lines)


def _read_test(root: Path) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    passed_over: list[str] = []
    for pid in read_identities(root, "idx/test_id.txt"):
        found = len(rows)
        for word, (modality, cameras) in _MODALITIES.items():
            for camera in cameras:
                images, strays = scan(root, f"test_{word}/cam{camera}/{pid:04d}")
                rows += [Row(path, pid, camera, modality) for path in images]
                passed_over += strays
        if len(rows) == found:
            raise InputError(
                f"{root / 'idx/test_id.txt'}: identity {pid} has no image in test_vis/ and test_nir/: "
                "extract the dataset again"
            )
    return rows, passed_over
