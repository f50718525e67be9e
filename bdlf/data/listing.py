"""A dataset as one checked table: a row for each image, the same columns whatever the dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bdlf.datasets.links import refuse_links_out
from bdlf.datasets.llcm import read_llcm
from bdlf.datasets.problems import STRICT, Problems
from bdlf.datasets.regdb import read_regdb
from bdlf.datasets.sysu import read_sysu
from bdlf.datasets.tree import Row, file_stats
from bdlf.system.errors import InputError

DATASETS = ("sysu", "regdb", "llcm", "synthetic")
COLUMNS = ("path", "pid", "camid", "modality", "split")
MODALITIES = {"vis": "visible", "ir": "infrared"}
SPLITS = ("train", "val", "test")
_FOLDER_NAMES = {"sysu": "SYSU-MM01", "regdb": "RegDB", "llcm": "LLCM"}


def listing(
    name: str,
    root: str | Path | None,
    *,
    split: int = 1,
    synthetic: Mapping[str, Any] | None = None,
    splits: Sequence[str] | None = None,
    follow_links: bool = False,
    problems: Problems = STRICT,
) -> pd.DataFrame:
    """The images of the dataset `name` under `root`, checked and in an order that no file system influences.

    Columns: `path` (relative to `root`, '/' between parts, unique), `pid` and `camid` (int64, the dataset's own
    numbers), `modality` ('vis' or 'ir'), `split` ('train', 'val' (SYSU only) or 'test'), sorted by split, pid, camid
    and path. No pid is in two splits. `attrs["name"]` is the dataset, `attrs["passed_over"]` the paths of what lay
    among the images and is none.

    `split` is RegDB's, 1 to 10. `synthetic` holds the keyword arguments of `synthetic_listing`, whose table has the
    factors of every image as further columns; it has no files, so its `root` is None. Only the `splits` are read and
    checked (None: all): files of the others may be absent. Links that lead out of `root` (which may be one itself) are
    refused without `follow_links`.

    Raises `InputError`, naming the file and the remedy, for an unknown name, an absent root, a dataset extracted by
    half, a wrong split file, or a training identity that one modality lacks. Where `problems` collects, only the first
    two are raised, and the table has what is readable.
    """
    if name not in DATASETS:
        raise InputError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    if name != "regdb" and split != 1:
        raise InputError(f"{name} has one split only, so dataset.split={split} means nothing: leave it at 1")
    known = SPLITS if name == "sysu" else ("train", "test")
    wanted = known if splits is None else tuple(one for one in known if one in splits)
    if unknown := set(splits or ()) - set(known):
        raise InputError(f"{name} has no split {min(unknown)!r}: choose of {', '.join(known)}")
    if name == "synthetic":
        from bdlf.data.synthetic.factors import synthetic_listing

        table = synthetic_listing(**(synthetic or {}))
        table = table[table["split"].isin(wanted)].reset_index(drop=True)
        table.attrs.update(name=name, passed_over=[])
    else:
        if synthetic is not None:
            raise InputError(f"{name} takes no options of the synthetic dataset: leave {', '.join(synthetic)} out")
        folder = _require_root(name, root)
        if not follow_links:
            refuse_links_out(folder, name, problems)
        if name == "sysu":
            rows, passed_over = read_sysu(folder, wanted, problems)
        elif name == "regdb":
            rows, passed_over = read_regdb(folder, split, wanted, problems)
        else:
            rows, passed_over = read_llcm(folder, wanted, problems)
        table = _table(rows)
        table.attrs.update(name=name, passed_over=passed_over)
    check(table, trained="train" in wanted, problems=problems)
    return table


def check(table: pd.DataFrame, *, trained: bool = True, problems: Problems = STRICT) -> None:
    """Raises `InputError` where a listing breaks its promises; says which identity or file, and what to do.

    `trained`: whether it must have training images, of every training identity in both modalities. Wrong contents go to
    `problems`.
    """
    name = table.attrs.get("name")
    if name not in DATASETS:
        raise InputError(f"a listing's attrs['name'] is {name!r}: use one of {', '.join(DATASETS)}")
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise InputError(f"{name}: the listing lacks the column {missing[0]}: it needs {', '.join(COLUMNS)}")
    for column, known in (("modality", tuple(MODALITIES)), ("split", SPLITS)):
        unknown = sorted(set(table[column]) - set(known))
        if unknown:
            raise InputError(f"{name}: {column} {unknown[0]!r} in the listing: use one of {', '.join(known)}")
    places = table.groupby("pid")["split"].nunique()
    shared = places.index[places > 1]
    for pid in shared:
        message = f"{name}: identity {pid} is in two splits ({len(shared)} such identities): restore the split files"
        problems.report("identity in two splits", f"identity {pid}", message)
    twice = table["path"][table["path"].duplicated()]
    for path in twice:
        message = f"{name}: {path} is listed twice ({len(twice)} such rows): list each image once"
        problems.report("image listed twice", path, message)
    if trained:
        _check_training(name, table[table["split"] != "test"], problems)


def _check_training(name: str, train: pd.DataFrame, problems: Problems) -> None:
    """Everyone trains on SYSU's validation identities too, so they must be as complete."""
    if not (train["split"] == "train").any():
        message = f"{name}: there is no training image: give at least one training identity"
        problems.report("no training image", "train", message)
    for modality, word in MODALITIES.items():
        lacking = np.setdiff1d(train["pid"], train["pid"][train["modality"] == modality])
        some = ", ".join(map(str, lacking[:5])) + (", ..." if len(lacking) > 5 else "")
        remedy = "extract the dataset again, or take it out of the split files"
        for pid in lacking:
            problems.report(
                f"training identity without {word} image",
                f"identity {pid}",
                f"{name}: training identity {pid} has no {word} image: {remedy}",
                strict=f"{name}: {len(lacking)} training identities have no {word} image ({some}): "
                f"{remedy.replace(' it ', ' them ')}",
            )


def fingerprint(table: pd.DataFrame, root: str | Path | None) -> str:
    """SHA-256, in hexadecimal, of the sorted rows (path, size in bytes, pid, camid, modality, split) of a listing.

    The order of the rows does not matter, nor where the dataset lies. The synthetic listing has no files: instead of
    sizes, every factor of its images is hashed, and a stamp of the code that draws them. Raises `InputError` where a
    file is absent.
    """
    if table.attrs["name"] == "synthetic":
        from bdlf.data.synthetic.drawing import drawing_stamp

        return hashlib.sha256(f"{content_hash(table)} {drawing_stamp()}".encode()).hexdigest()
    if root is None:
        raise InputError(f"{table.attrs['name']}: set dataset.root to the dataset's folder")
    rows = table[list(COLUMNS)].assign(size=file_stats(Path(root), table["path"].tolist())[:, 0])
    return content_hash(rows)


def content_hash(table: pd.DataFrame) -> str:
    """SHA-256, in hexadecimal, of a table with a `path` column, whatever the order of its rows.

    Six digits of a float count, so that the last bit of a processor's sine does not.
    """
    text = table.sort_values("path").to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def is_synthetic(root: str | Path) -> bool:
    """Whether the tree at `root` was written by `bdlf.synthesize`, which leaves a `synthetic.json` there."""
    return (Path(root) / "synthetic.json").is_file()


def _require_root(name: str, root: str | Path | None) -> Path:
    if root is None or not Path(root).is_dir():
        tried = "dataset.root is not set" if root is None else f"no folder {str(root)!r}"
        raise InputError(
            f"{name}: {tried}: set dataset.root=FOLDER, or the environment variable BDLF_DATA to the folder that "
            f"holds {_FOLDER_NAMES[name]}"
        )
    return Path(root)


def _table(splits: Mapping[str, list[Row]]) -> pd.DataFrame:
    parts = [pd.DataFrame(rows, columns=Row._fields).assign(split=split) for split, rows in splits.items()]
    table: pd.DataFrame = pd.concat([part.sort_values(["pid", "camid", "path"]) for part in parts], ignore_index=True)
    table[["pid", "camid"]] = table[["pid", "camid"]].astype(np.int64)
    return table
