"""The synthetic set is a benchmark: only the shared factors identify a person, and nothing simpler does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bdlf.data.synthetic.drawing import render
from bdlf.data.synthetic.factors import FACTOR_KINDS, synthetic_listing

IDENTITIES = 64
CHANCE = 1 / IDENTITIES


@pytest.fixture(scope="module")
def test_split() -> pd.DataFrame:
    return synthetic_listing(train_identities=0, test_identities=IDENTITIES)


@pytest.fixture(scope="module")
def pixels(test_split: pd.DataFrame) -> np.ndarray:
    return render(test_split, 64, 32)


def rank1(listing: pd.DataFrame, features: np.ndarray, query: str, gallery: str) -> float:
    """Share of queries whose nearest gallery image (another one) is of their identity."""
    q, g = (np.flatnonzero(listing["modality"] == kind) for kind in (query, gallery))
    distance = (features[g] ** 2).sum(axis=1) - 2 * features[q] @ features[g].T
    distance[q[:, None] == g[None]] = np.inf
    pids = listing["pid"].to_numpy()
    return float((pids[g[distance.argmin(axis=1)]] == pids[q]).mean())


def standardised(listing: pd.DataFrame, features: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance within each modality: a constant offset between them costs nothing."""
    result = np.empty_like(features, dtype=float)
    for kind in ("vis", "ir"):
        rows = (listing["modality"] == kind).to_numpy()
        result[rows] = (features[rows] - features[rows].mean(axis=0)) / (features[rows].std(axis=0) + 1e-6)
    return result


def test_shared_factors_identify_everybody(test_split: pd.DataFrame) -> None:
    names = [name for name, kind in FACTOR_KINDS.items() if kind == "shared"]
    factors = test_split[names].to_numpy()
    factors = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    assert rank1(test_split, factors, "ir", "vis") == 1.0
    people = factors[~test_split["pid"].duplicated().to_numpy()]
    apart = np.sqrt(((people[:, None] - people[None]) ** 2).sum(axis=2))
    assert apart[~np.eye(len(people), dtype=bool)].min() > 2


@pytest.mark.parametrize("kind", ["visible", "infrared", "nuisance"])
def test_no_other_factor_tells_across_modalities(kind: str, test_split: pd.DataFrame) -> None:
    """Colours predict no emissivity and no silhouette: knowing them leaves matching at chance."""
    people = test_split[~test_split["pid"].duplicated()]
    own = [name for name, other in FACTOR_KINDS.items() if other == kind]
    rest = [name for name, other in FACTOR_KINDS.items() if other != kind and other != "nuisance"]
    if kind == "nuisance":
        own = [name for name in own if np.ptp(people[name]) > 0]
    correlation = np.corrcoef(people[own + rest].to_numpy().T)[: len(own), len(own) :]
    assert np.abs(correlation).max() < 0.55  # the largest of some thousand correlations of 64 people
    assert np.sqrt((correlation**2).mean()) == pytest.approx(1 / np.sqrt(len(people) - 1), rel=0.25)


def histograms(images: np.ndarray, strips: int) -> np.ndarray:
    """Histogram of 16 levels of every channel in each horizontal strip."""
    strips_of = np.split(images, strips, axis=1)
    parts = [
        np.stack([np.bincount(level, minlength=16) for level in (strip[..., c] // 16).reshape(len(images), -1)])
        for strip in strips_of
        for c in range(3)
    ]
    return np.concatenate(parts, axis=1).astype(float)


@pytest.mark.parametrize("strips", [1, 8])
def test_histograms_match_infrared_to_visible_near_chance(
    strips: int, test_split: pd.DataFrame, pixels: np.ndarray
) -> None:
    features = standardised(test_split, histograms(pixels, strips))
    assert rank1(test_split, features, "ir", "vis") < 4 * CHANCE
    # The same features do recognise people within the visible: the test is not blind.
    assert rank1(test_split, features, "vis", "vis") > 8 * CHANCE


def test_raw_pixels_match_little(test_split: pd.DataFrame, pixels: np.ndarray) -> None:
    grey = pixels.mean(axis=3).reshape(len(pixels), 32, 2, 16, 2).mean(axis=(2, 4)).reshape(len(pixels), -1)
    assert rank1(test_split, standardised(test_split, grey), "ir", "vis") < 4 * CHANCE
