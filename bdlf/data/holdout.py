"""Which training identities are kept from training, so that they can choose an epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bdlf.system.errors import InputError


def train_on_all(listing: pd.DataFrame) -> pd.DataFrame:
    """The listing with SYSU-MM01's validation identities in 'train', where everyone trains on them [lineage]."""
    return _relabelled(listing, listing["split"].replace("val", "train"))


def hold_out(listing: pd.DataFrame, *, share: float, seed: int) -> pd.DataFrame:
    """The listing with the identities that choose an epoch in 'val': SYSU-MM01's own 99, elsewhere a seeded `share`.

    The draw depends on the training identities and `seed` alone, and takes `round(share x identities)` of them.

    Raises InputError where that leaves fewer than 2 identities on either side.
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
    changed.attrs.update(listing.attrs)
    return changed
