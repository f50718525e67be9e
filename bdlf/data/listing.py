"""The listing of any dataset, on disk or drawn, and the fingerprint of its contents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bdlf.data.synthetic.factors import FACTOR_KINDS, synthetic_listing
from bdlf.datasets import dataset_named
from bdlf.datasets.problems import STRICT, Problems
from bdlf.datasets.table import COLUMNS, asked_splits, check, content_hash, read_table
from bdlf.datasets.tree import file_stats
from bdlf.system.errors import InputError


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
    numbers), `modality` ('vis' or 'ir'), `split` ('train', 'val' (where the dataset has validation identities) or
    'test'), sorted by split, pid, camid and path. No pid is in two splits. What lies among the images and is none is
    passed over; `bdlf.datasets.table.read_table` returns its paths.

    `split` is a number, where the dataset has numbered splits (RegDB: 1 to 10). `synthetic` holds the keyword arguments
    of `synthetic_listing`, whose table has the factors of every image as further columns; that dataset has no files, so
    its `root` is None. Only the `splits` are read and checked (None: all): files of the others may be absent. Links
    that lead out of `root` (which may be one itself) are refused unless `follow_links` is set.

    Raises `InputError`, naming the file and the remedy, for an unknown name, an absent root, a dataset extracted by
    half, a wrong split file, or a training identity that one modality lacks. Where `problems` collects, only the first
    two are raised, and the table has what is readable.
    """
    dataset = dataset_named(name)
    wanted = asked_splits(dataset, split, splits)
    if dataset.has_files:
        if synthetic is not None:
            raise InputError(f"{name} takes no options of the synthetic dataset: leave {', '.join(synthetic)} out")
        options: dict[str, Any] = {"split": split, "splits": splits, "follow_links": follow_links}
        table, _ = read_table(name, root, **options, problems=problems)
    else:
        table = synthetic_listing(**(synthetic or {}))
        table = table[table["split"].isin(wanted)].reset_index(drop=True)
        check(table, name, trained="train" in wanted, problems=problems)
    return table


def fingerprint(table: pd.DataFrame, root: str | Path | None) -> str:
    """SHA-256, in hexadecimal, of the sorted rows (path, size in bytes, pid, camid, modality, split) of a listing.

    The order of the rows does not matter, nor where the dataset lies. The images of the synthetic dataset have no
    files. Its listing is known by the columns of factors; all columns are hashed, and a stamp of the code that draws
    the images. Raises `InputError` where a file is absent.
    """
    if set(FACTOR_KINDS) <= set(table.columns):
        from bdlf.data.synthetic.drawing import drawing_stamp

        return hashlib.sha256(f"{content_hash(table)} {drawing_stamp()}".encode()).hexdigest()
    if root is None:
        raise InputError("the listing has files, but no folder is given: set dataset.root to the dataset's folder")
    rows = table[list(COLUMNS)].assign(size=file_stats(Path(root), table["path"].tolist())[:, 0])
    return content_hash(rows)
