"""Scores features in a setting: mean and spread of the figures over the trials, and the results of each query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from bdlf.evaluation.metrics import RetrievalMetrics, retrieval_metrics
from bdlf.evaluation.protocols import Setting
from bdlf.system.errors import InputError

_NAMED = 5  # how many images a message names


@dataclass(frozen=True, eq=False)
class Scores:
    """The figures `rank1, rank5, rank10, rank20, mAP, mINP` of a setting's trials, in percent."""

    trials: list[dict[str, float]]
    mean: dict[str, float]
    std: dict[str, float] | None
    """Standard deviation over the trials (ddof 1); None for a single trial."""
    queries: int
    """Queries of one trial. All trials of a setting have equally many."""
    valid_queries: int
    """Queries of one trial that have a match."""
    pids: np.ndarray
    """(queries,) int64: the identity of each query, the same in every trial."""
    first_match: np.ndarray
    """(trials, queries) ranks as in `RetrievalMetrics`; 0 for a query without a match."""
    ap: np.ndarray
    """(trials, queries) fractions; NaN where a query has no match."""
    inp: np.ndarray
    """(trials, queries) fractions; NaN where a query has no match."""


def score(
    features: Float[np.ndarray, "n c"], rows: Int[np.ndarray, " m"], listing: pd.DataFrame, setting: Setting
) -> Scores:
    """Scores L2-normalised `features` by their dot products. Line i belongs to row `rows[i]` of `listing`.

    The dot products are computed in float32, once for all trials, in the order of the listing, so the order of `rows`
    changes nothing.

    Raises InputError if features and rows differ in number, if a row occurs twice, if a feature that the setting needs
    is missing or not finite, and if the queries of a trial are of other identities than those of the first trial. (The
    latter happens in LLCM's reading `released`, which draws the queries, if the listing is out of order.) Raises what
    `retrieval_metrics` raises, too.
    """
    queries = np.unique(np.concatenate([trial[0] for trial in setting.trials]))
    images = np.unique(np.concatenate([trial[1] for trial in setting.trials]))
    lines = _lines(features, rows, listing, np.union1d(queries, images))
    features = features.astype(np.float32, copy=False)
    similarity = features[lines[queries]] @ features[lines[images]].T

    pids, camids = listing["pid"].to_numpy(), listing["camid"].to_numpy()
    query_pids = pids[setting.trials[0][0]]
    results = []
    for trial, (query_rows, gallery_rows) in enumerate(setting.trials):
        if not np.array_equal(pids[query_rows], query_pids):
            raise InputError(
                f"{setting.name}: query by query, trial {trial} has other identities than trial 0; sort the listing by "
                "identity and camera"
            )
        part = similarity
        if not np.array_equal(query_rows, queries):
            part = part.take(np.searchsorted(queries, query_rows), axis=0)
        if not np.array_equal(gallery_rows, images):
            part = part.take(np.searchsorted(images, gallery_rows), axis=1)
        results.append(
            retrieval_metrics(
                part,
                pids[query_rows],
                pids[gallery_rows],
                camids[query_rows],
                camids[gallery_rows],
                protocol=setting.rule,
            )
        )
    trials = [_percent(result) for result in results]
    figures = pd.DataFrame(trials)
    return Scores(
        trials=trials,
        mean=figures.mean().to_dict(),
        std=figures.std(ddof=1).to_dict() if len(trials) > 1 else None,
        queries=len(results[0].first_match),
        valid_queries=results[0].valid_queries,
        pids=query_pids.astype(np.int64),
        first_match=np.stack([result.first_match for result in results]),
        ap=np.stack([result.average_precision for result in results]),
        inp=np.stack([result.inverse_negative_penalty for result in results]),
    )


def _percent(result: RetrievalMetrics) -> dict[str, float]:
    figures = {f"rank{rank}": float(result.cmc[rank - 1]) for rank in (1, 5, 10, 20)}
    return {name: 100 * value for name, value in {**figures, "mAP": result.mAP, "mINP": result.mINP}.items()}


def _lines(features: np.ndarray, rows: np.ndarray, listing: pd.DataFrame, needed: np.ndarray) -> np.ndarray:
    """(listing,) the line of `features` of each row of the listing, or -1. Rows in `needed` are checked."""
    if len(features) != len(rows):
        raise InputError(f"{len(features)} features for {len(rows)} rows: one is needed for each")
    if rows.size and (rows.min() < 0 or rows.max() >= len(listing)):
        raise InputError(f"features of rows {rows.min()}..{rows.max()}, but the listing has {len(listing)}")
    if len(np.unique(rows)) != len(rows):
        raise InputError("a row of the listing has two features: keep one")
    paths = listing["path"].to_numpy()
    lines = np.full(len(listing), -1)
    lines[rows] = np.arange(len(rows))
    missing = needed[lines[needed] < 0]
    if missing.size:
        some = ", ".join(paths[missing[:_NAMED]]) + (", ..." if missing.size > _NAMED else "")
        raise InputError(f"{missing.size} images that the protocol needs have no feature: {some}")
    bad = needed[~np.isfinite(features[lines[needed]]).all(axis=1)]
    if bad.size:
        raise InputError(f"{bad.size} features are not finite, that of {paths[bad[0]]} first")
    return lines
