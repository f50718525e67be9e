"""The body-shape maps of real images: files of the user, which have to be there and decide the weights of a run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from bdlf.datasets.table import content_hash
from bdlf.system.errors import InputError


def require_silhouettes(folder: Path, table: pd.DataFrame) -> None:
    """Raise InputError if an image of the listing `table` has no silhouette, a file of the same path below `folder`."""
    missing = [path for path in table["path"] if not (folder / path).is_file()]
    if missing:
        raise InputError(
            f"{folder / missing[0]} does not exist ({len(missing):,} of the {len(table):,} silhouettes of the training "
            "images are missing): put there what the human parser makes of each image, or set dataset.silhouettes to "
            "the folder that has it"
        )


def silhouettes_fingerprint(folder: Path, table: pd.DataFrame) -> str:
    """SHA-256, in hexadecimal, of the paths and contents of the silhouettes of the listing `table`.

    The whole content counts, because the maps of two parsers often have equally many bytes. Neither the order of the
    rows matters nor where `folder` lies. Raises InputError if a file is missing or cannot be read.
    """
    require_silhouettes(folder, table)
    try:
        digests = [hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in table["path"]]
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}): make it readable") from error
    return content_hash(table[["path"]].assign(digest=digests))
