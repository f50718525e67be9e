"""Holds out training identities for validation, so that they can select an epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bdlf.system.errors import InputError


def train_on_all(listing: pd.DataFrame) -> pd.DataFrame:
    """The listing with the split 'val' renamed to 'train': everyone trains on SYSU-MM01's validation set [lineage]."""
    return _relabelled(listing, listing["split"].replace("val", "train"))


def hold_out(listing: pd.DataFrame, *, share: float, seed: int) -> pd.DataFrame:
    """The listing with held-out training identities in the split 'val'.

    SYSU-MM01 has 99 validation identities of its own; its listing is returned unchanged. In every other listing,
    round(`share` x identities) training identities are drawn. The draw depends only on the training identities and on
    `seed`.

    Raises `InputError` where fewer than 2 identities would be held out, or fewer than 2 would be left for training.
    """
    if (listing["split"] == "val").any():
        return listing
    if not 0 < share < 1:
        raise InputError(f"evaluation.holdout={share}: a share between 0 and 1 is needed")
    pids = np.unique(listing["pid"][listing["split"] == "train"])
    count = round(share * len(pids))
    if not 2 <= count <= len(pids) - 2:
        raise InputError(
            f"evaluation.holdout={share} holds out {count} of {len(pids)} training identities; choose a share that "
            "leaves at least 2 on either side"
        )
    chosen = np.random.default_rng(seed).permutation(pids)[:count]
    return _relabelled(listing, listing["split"].mask(listing["pid"].isin(chosen), "val"))


def _relabelled(listing: pd.DataFrame, split: pd.Series) -> pd.DataFrame:
    changed: pd.DataFrame = listing.assign(split=split)
    return changed
