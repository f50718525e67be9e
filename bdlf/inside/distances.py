"""The figure of the distances: within and between identities, within and across modalities, and how they overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bdlf.inside.features import InsideFeatures
from bdlf.inside.style import BLUE, MATHS, VERMILION, blank, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("Z", "Z_B", "Z_D", "Zbar_D")
"""The features that are drawn, as far as there are any."""
PAIRS = {"within": "within a modality", "across": "across modalities"}
MOST = 2000
"""How many images are compared; of more, this many are drawn at random."""
BINS = np.linspace(0, 2, 101)
"""Edges of the bins of cosine distances, whose range is 0..2."""

Shares = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]


def distances_figure(inside: InsideFeatures, *, width: int = 170, seed: int = 0) -> Figure:
    """Histograms of the cosine distances 1 - cos of all pairs of images, in 0..2.

    Each feature has a panel of pairs within a modality, and one of pairs across modalities. Each panel
    compares pairs of one identity with pairs of two identities and names the share in which both histograms overlap. Of
    more than `MOST` images, so many are drawn with `seed`.
    """
    shares = distance_shares(inside, seed=seed)
    names = list(dict.fromkeys(name for name, _ in shares))
    tall = width < 100 or len(names) < 3
    with styled():
        figure = blank(width, (33 if width < 100 else 45) * len(names) + 10 if tall else 74)
        grid = figure.subplots(len(names) if tall else 2, 2 if tall else len(names), squeeze=False, sharex="all")
        grid = grid if tall else grid.T
        for column, name in enumerate(names):
            for row, pairs in enumerate(PAIRS):
                axes = grid[column, row]
                _panel(axes, *shares[name, pairs])
                axes.set_title(f"{MATHS.get(name, name)} {PAIRS[pairs]}\noverlap {overlap(*shares[name, pairs]):.2f}")
        used = np.flatnonzero(np.sum(list(shares.values()), axis=(0, 1)))
        grid[0, 0].set_xlim(0, min(2.0, BINS[used[-1] + 1] + 0.02))
        for axes in grid[-1] if tall else grid[:, -1]:
            axes.set_xlabel("cosine distance")
        for axes in grid[:, 0] if tall else grid[0]:
            axes.set_ylabel("density of pairs")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def distances_numbers(inside: InsideFeatures, *, seed: int = 0) -> dict[str, Any]:
    """For each feature, within and across modalities: the overlap, 0..1, and the two mean distances, 0..2."""
    middle = (BINS[1:] + BINS[:-1]) / 2
    numbers: dict[str, Any] = {}
    for (name, pairs), (same, other) in distance_shares(inside, seed=seed).items():
        numbers.setdefault(name, {})[pairs] = {
            "overlap": round(overlap(same, other), 4),
            "mean_same_identity": round(float(same @ middle), 4),
            "mean_other_identity": round(float(other @ middle), 4),
        }
    return numbers


def overlap(same: np.ndarray, other: np.ndarray) -> float:
    """The overlapping coefficient of two histograms of shares, 0..1: 0 if no bin has both, 1 if they are equal."""
    return float(np.minimum(same, other).sum())


def distance_shares(inside: InsideFeatures, *, seed: int = 0) -> Shares:
    """By feature and kind of pair (see `PAIRS`): the histograms of pairs of one identity and of pairs of two.

    A histogram has the share of its pairs in each bin of `BINS`. It is all zero if there are no such pairs, as across
    modalities if the images are all of one modality.
    """
    table = inside.table
    chosen = np.arange(len(table))
    if len(chosen) > MOST:
        chosen = np.sort(np.random.default_rng(seed).choice(len(table), MOST, replace=False))
    pids, modalities = (table[name].to_numpy()[chosen] for name in ("pid", "modality"))
    first, second = np.triu_indices(len(chosen), k=1)
    same = pids[first] == pids[second]
    within = modalities[first] == modalities[second]
    found: Shares = {}
    for name, distances in _distances(inside.features, chosen).items():
        bins = np.clip((distances[first, second] * (len(BINS) - 1) / 2).astype(np.int64), 0, len(BINS) - 2)
        for pairs, kind in (("within", within), ("across", ~within)):
            found[name, pairs] = (_shares(bins[kind & same]), _shares(bins[kind & ~same]))
    return found


def _distances(features: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """(m, m) cosine distances by feature. A feature of length 0 has the distance 1 to all others."""
    found = {}
    for name in SHOWN:
        if name in features:
            values = features[name][chosen].astype(np.float64)
            values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float64).tiny)
            found[name] = 1 - values @ values.T
    return found


def _shares(bins: np.ndarray) -> np.ndarray:
    counts = np.bincount(bins, minlength=len(BINS) - 1).astype(np.float64)
    shares: np.ndarray = counts / max(1.0, counts.sum())
    return shares


def _panel(axes: Axes, same: np.ndarray, other: np.ndarray) -> None:
    density = (len(BINS) - 1) / 2
    styles = ((same, "same identity", BLUE, "-"), (other, "different identities", VERMILION, "--"))
    for shares, label, colour, dashes in styles:
        axes.stairs(shares * density, BINS, color=colour, linestyle=dashes, label=label)
        axes.stairs(shares * density, BINS, color=colour, fill=True, alpha=0.2)
    axes.set_ylim(0)
