"""The listing: a dataset as one checked table, with a row for each image and the same columns whatever the dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bdlf.datasets import dataset_named
from bdlf.datasets.description import MODALITIES, SPLITS, Dataset, Row
from bdlf.datasets.links import refuse_links_out
from bdlf.datasets.problems import STRICT, Problems
from bdlf.system.errors import InputError

COLUMNS = ("path", "pid", "camid", "modality", "split")


def asked_splits(dataset: Dataset, split: int, splits: Sequence[str] | None) -> tuple[str, ...]:
    """The splits to read, out of those that the dataset has, in its own order; `splits` None: all of them.

    Raises `InputError` for a `split` that is none of the dataset's numbers, and for an unknown name in `splits`.
    """
    name, numbers = dataset.name, dataset.numbered_splits
    if numbers and split not in numbers:
        raise InputError(f"{name} has the splits {numbers[0]} to {numbers[-1]}, not {split}: set dataset.split to one")
    if not numbers and split != 1:
        raise InputError(f"{name} has one split only, so dataset.split={split} means nothing: leave it at 1")
    if unknown := set(splits or ()) - set(dataset.splits):
        raise InputError(f"{name} has no split {min(unknown)!r}: choose of {', '.join(dataset.splits)}")
    return dataset.splits if splits is None else tuple(one for one in dataset.splits if one in splits)


def read_table(
    name: str,
    root: str | Path | None,
    *,
    split: int = 1,
    splits: Sequence[str] | None = None,
    follow_links: bool = False,
    problems: Problems = STRICT,
) -> tuple[pd.DataFrame, list[str]]:
    """The listing of a dataset that lies on disk, and the paths of what lay among the images and is none.

    The arguments, the table and the errors are those of `bdlf.data.listing`.
    """
    dataset = dataset_named(name)
    wanted = asked_splits(dataset, split, splits)
    if dataset.read is None:
        raise InputError(f"{name} has no files: its images are drawn")
    if root is None or not Path(root).is_dir():
        tried = "dataset.root is not set" if root is None else f"no folder {str(root)!r}"
        raise InputError(
            f"{name}: {tried}: set dataset.root=FOLDER, or the environment variable BDLF_DATA to the folder that "
            f"holds {dataset.folder}"
        )
    folder = Path(root)
    if not follow_links:
        refuse_links_out(folder, dataset, problems)
    found = dataset.read(folder, wanted, split, problems)
    table = _table(found.rows)
    check(table, name, trained="train" in wanted, problems=problems)
    return table, found.passed_over


def check(table: pd.DataFrame, name: str, *, trained: bool = True, problems: Problems = STRICT) -> None:
    """Raises `InputError` where a listing breaks its promises; the error says which identity or file, and what to do.

    `name` is the dataset's, for the messages. `trained` says whether there must be training images, of every training
    identity in both modalities. Wrong contents are reported to `problems`; wrong columns and words are always raised.
    """
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
    """Everyone trains on validation identities too, so all identities but those of the test need both modalities."""
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


def content_hash(table: pd.DataFrame) -> str:
    """SHA-256, in hexadecimal, of a table with a `path` column, whatever the order of its rows.

    Floats count with six digits, so that the last bit of a processor's sine plays no part.
    """
    text = table.sort_values("path").to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def _table(splits: Mapping[str, list[Row]]) -> pd.DataFrame:
    parts = [pd.DataFrame(rows, columns=Row._fields).assign(split=split) for split, rows in splits.items()]
    table: pd.DataFrame = pd.concat([part.sort_values(["pid", "camid", "path"]) for part in parts], ignore_index=True)
    table[["pid", "camid"]] = table[["pid", "camid"]].astype(np.int64)
    return table
