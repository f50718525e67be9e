"""How sure a difference between two rows is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
_CHUNK = 250  # resamples in memory at a time


class Interval(NamedTuple):
    """A mean difference and its 95 % interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def paired_interval(
    differences: Sequence[Float[np.ndarray, " queries"]],
    groups: Sequence[int],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean of paired differences, over runs and over queries.

    `differences[r]` holds, for the pair of runs r (the same seed and split of two rows), the difference of every query;
    queries without a value are NaN. Runs of one of the `groups` (RegDB's split) have the same queries. A resample draws
    runs with replacement and, once for each group, queries with replacement; the mean of each drawn run counts alike.
    With a single pair of runs the interval is over queries alone.
    """
    random = np.random.default_rng(seed)
    stacks: dict[int, list[int]] = {}
    for run, group in enumerate(groups):
        stacks.setdefault(group, []).append(run)
    means = np.empty((len(differences), resamples))
    for runs in stacks.values():
        values = np.stack([differences[run] for run in runs])  # (runs, queries)
        known = np.isfinite(values)
        filled = np.where(known, values, 0.0)
        queries = values.shape[1]
        for start in range(0, resamples, _CHUNK):
            count = min(_CHUNK, resamples - start)
            picked = random.integers(queries, size=(count, queries)) + queries * np.arange(count)[:, None]
            weights = np.bincount(picked.reshape(-1), minlength=count * queries).reshape(count, queries).astype(float)
            with np.errstate(invalid="ignore"):
                means[runs, start : start + count] = (filled @ weights.T) / (known @ weights.T)
    drawn = random.integers(len(differences), size=(resamples, len(differences)))
    sampled = np.take_along_axis(means.T, drawn, axis=1).mean(axis=1)
    low, high = np.nanpercentile(sampled, [2.5, 97.5])
    return Interval(float(np.mean([np.nanmean(one) for one in differences])), float(low), float(high))


def query_values(arrays: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """Of row `row` of a run's `per_query.npz`: `rank1` and `mAP` of every query in percent, mean over the trials."""
    first_match, precision = arrays[f"{row}.first_match"], arrays[f"{row}.ap"]
    matched = first_match > 0
    trials = np.maximum(matched.sum(axis=0), 1)
    valid = matched.any(axis=0)
    rank1 = (first_match == 1).sum(axis=0) / trials
    ap = np.where(matched, precision, 0.0).sum(axis=0) / trials
    return {"rank1": 100 * np.where(valid, rank1, np.nan), "mAP": 100 * np.where(valid, ap, np.nan)}
