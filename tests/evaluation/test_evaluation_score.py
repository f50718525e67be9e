"""`score` computes one product for all trials, which gives the same as a product for each trial."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from bdlf.evaluation import Asked, retrieval_metrics, score, settings
from bdlf.system.errors import InputError

FIGURES = ["rank1", "rank5", "rank10", "rank20", "mAP", "mINP"]


def listing_of(seed=0):
    """Twelve identities, 3 images in each of visible cameras 1, 2, 4 and infrared 3, 6, shuffled; 0..3 for training."""
    rows = [
        (f"cam{c}/{pid:04d}/{n:04d}.jpg", pid, c, "ir" if c in (3, 6) else "vis", "train" if pid < 4 else "test")
        for pid in range(12)
        for c in (1, 2, 3, 4, 6)
        for n in range(3)
        if (pid, c) != (5, 6)
    ]
    listing = pd.DataFrame(rows, columns=["path", "pid", "camid", "modality", "split"])
    return listing.sample(frac=1, random_state=seed).reset_index(drop=True)


def features_of(listing, seed=0):
    """Unit vectors, some of their direction shared by an identity's images."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((12, 8))
    features = shared[listing["pid"]] + 1.5 * rng.standard_normal((len(listing), 8))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("dataset", "asked"),
    [
        ("sysu", {"mode": "all"}),
        ("sysu", {"mode": "indoor"}),
        ("llcm", {"direction": "ir_to_vis"}),
        ("llcm", {"direction": "vis_to_ir", "reading": "released"}),
        ("regdb", {"direction": "vis_to_ir"}),
    ],
)
def test_equals_a_product_for_each_trial(dataset, asked):
    listing = listing_of()
    if dataset == "llcm":  # whose listing is sorted, so that the queries which "released" draws are
        listing = listing.sort_values(["pid", "camid"]).reset_index(drop=True)
    features = features_of(listing)
    (setting,) = settings(dataset, listing, Asked(**asked))
    rows = np.random.default_rng(1).permutation(np.flatnonzero(listing["split"] == "test"))
    scores = score(features[rows], rows, listing, setting)

    pids, camids = listing["pid"].to_numpy(), listing["camid"].to_numpy()
    trials = []
    for trial, (queries, gallery) in enumerate(setting.trials):
        result = retrieval_metrics(
            features[queries].astype(np.float64) @ features[gallery].T.astype(np.float64),
            pids[queries],
            pids[gallery],
            camids[queries],
            camids[gallery],
            protocol=dataset,
        )
        np.testing.assert_array_equal(scores.first_match[trial], result.first_match)
        np.testing.assert_allclose(scores.ap[trial], result.average_precision)
        np.testing.assert_allclose(scores.inp[trial], result.inverse_negative_penalty)
        trials.append([100 * value for value in (*result.cmc[[0, 4, 9, 19]], result.mAP, result.mINP)])
        assert scores.valid_queries == result.valid_queries
        assert scores.queries == len(queries)
        np.testing.assert_array_equal(scores.pids, listing["pid"][queries])
    assert len(scores.trials) == len(setting.trials) == len(trials)
    assert all(list(one) == FIGURES for one in (*scores.trials, scores.mean))
    np.testing.assert_allclose([[one[name] for name in FIGURES] for one in scores.trials], trials)
    np.testing.assert_allclose([scores.mean[name] for name in FIGURES], np.mean(trials, axis=0))
    if len(trials) == 1:
        assert scores.std is None
    else:
        assert scores.std is not None and scores.std["rank1"] > 0
        np.testing.assert_allclose([scores.std[name] for name in FIGURES], np.std(trials, axis=0, ddof=1), atol=1e-12)
    json.dumps([scores.trials, scores.mean, scores.std, scores.queries, scores.valid_queries], allow_nan=False)


def test_queries_that_are_drawn_in_another_order_of_identities_are_refused():
    listing = listing_of()  # shuffled: images of an identity and camera do not stand together
    features = features_of(listing)
    (setting,) = settings("llcm", listing, Asked(direction="vis_to_ir", reading="released"))
    with pytest.raises(InputError, match=r"released: query by query, trial \d has other identities than trial 0"):
        score(features, np.arange(len(listing)), listing, setting)


def test_order_of_the_features_and_rows_beyond_the_protocol_do_not_matter():
    listing = listing_of()
    features = features_of(listing)
    (setting,) = settings("sysu", listing, Asked(mode="all"))
    test = np.flatnonzero(listing["split"] == "test")
    shuffled = np.random.default_rng(3).permutation(len(listing))
    extra = features.copy()
    extra[np.flatnonzero(listing["split"] == "train")] = np.nan  # nobody asks for these
    one, other = score(features[test], test, listing, setting), score(extra[shuffled], shuffled, listing, setting)
    assert one.trials == other.trials
    np.testing.assert_array_equal(one.ap, other.ap)


def test_bad_features_are_refused_by_name():
    listing = listing_of()
    features, rows = features_of(listing), np.arange(len(listing))
    (setting,) = settings("sysu", listing, Asked(mode="all"))
    query = setting.trials[0][0][2]
    with pytest.raises(InputError, match=f"{len(rows) - 1} features for {len(rows)} rows"):
        score(features[1:], rows, listing, setting)
    with pytest.raises(InputError, match="two features"):
        score(features, np.where(rows == 1, 0, rows), listing, setting)
    with pytest.raises(InputError, match="but the listing has"):
        score(features, rows + 1, listing, setting)
    with pytest.raises(InputError, match="but the listing has"):
        score(features, rows - 1, listing, setting)
    with pytest.raises(InputError, match=f"1 images that the protocol needs have no feature: {listing['path'][query]}"):
        score(np.delete(features, query, axis=0), np.delete(rows, query), listing, setting)
    for value in (np.nan, np.inf):
        damaged = features.copy()
        damaged[query, 3] = value
        with pytest.raises(InputError, match=f"1 features are not finite, that of {listing['path'][query]} first"):
            score(damaged, rows, listing, setting)
