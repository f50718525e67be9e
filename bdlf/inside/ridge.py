"""Cross-fitted ridge regression on many targets at once, whose penalty is chosen inside the identities that fit it.

All targets share the decomposition of the features, so probing a hundred targets costs little more than probing one.
The result is that of `sklearn.linear_model.Ridge` with the same penalty, which a test compares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

PENALTIES = tuple(10.0**power for power in range(-7, 2))
"""What is added to the mean square of the features, whose rows are scaled to a mean squared length of 1."""
FOLDS = 5
"""In how many parts identities are split; each part is evaluated by probes that are fitted on the others."""
INNER_FOLDS = 3
"""In how many parts the identities of a fit are split to choose its penalty."""
MOST_AXES = 512
"""Of a feature with more channels, probes read its first so many principal axes, because time grows with the cube."""


def folds_of(pids: Int[np.ndarray, " k"], folds: int, seed: int) -> Int[np.ndarray, " k"]:
    """The fold of every image, 0 .. folds - 1. All images of an identity are in one fold; folds differ by at most one
    identity. There are never more folds than identities."""
    known, of_image = np.unique(pids, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(known))
    fold: NDArray[np.int64] = (order % min(folds, len(known)))[of_image]
    return fold


def on_principal_axes(features: Float[np.ndarray, "m c"]) -> Float[np.ndarray, "m axes"]:
    """Features, centred, and turned onto their first `MOST_AXES` principal axes, float64.

    Ridge regression on them gives the same in fewer numbers, unless axes are cut off. Axes along which the features do
    not vary are left out: P of Eq. 9 has half the rank, so this halves Z^B.
    """
    values = features.astype(np.float64)
    values -= values.mean(axis=0)
    wide = values.shape[1] > len(values)
    squares, axes = np.linalg.eigh(values @ values.T if wide else values.T @ values)
    squares, axes = squares[::-1][:MOST_AXES], axes[:, ::-1][:, :MOST_AXES]
    kept = squares > max(squares[0], 0.0) * 1e-12
    found: NDArray[np.float64] = axes[:, kept] * np.sqrt(squares[kept]) if wide else values @ axes[:, kept]
    return found


class Fit:
    """Ridge regressions of all targets on the same features, under every penalty of `PENALTIES`.

    `features` (k, c) and `targets` (k, t) belong to the same images. Targets are centred here.
    """

    def __init__(self, features: Float[np.ndarray, "k c"], targets: Float[np.ndarray, "k t"]) -> None:
        self.mean = features.mean(axis=0)
        centred = features - self.mean
        total = float((centred**2).sum()) or 1.0  # features that do not vary explain nothing
        squares, self.axes = np.linalg.eigh(centred.T @ centred / total)
        self.squares = np.maximum(squares, 0.0)
        self.moments = self.axes.T @ (centred.T @ (targets - targets.mean(axis=0))) / total

    def predictions(self, features: Float[np.ndarray, "n c"], penalty: float) -> Float[np.ndarray, "n t"]:
        """Predicted differences of the targets from their mean over the images of the fit."""
        weights = self.moments / (self.squares + penalty)[:, None]
        found: NDArray[np.float64] = ((features - self.mean) @ self.axes) @ weights
        return found


def cross_fitted(
    features: Float[np.ndarray, "k c"],
    targets: Sequence[Float[np.ndarray, "k d"]],
    pids: Int[np.ndarray, " k"],
    fold: Int[np.ndarray, " k"],
    *,
    seed: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions for every image by ridge regressions that were fitted without its identity's fold.

    Each of `targets` has d columns, which share a penalty: the one with the smallest squared error when the identities
    of the fit are split again.

    Returns for each target two arrays: predicted differences from the mean of the images of the fit, (k, d); and the
    same, (folds, k, d), of the images of each fit, by regressions that were fitted without their inner fold.
    """
    columns = np.concatenate(targets, axis=1)
    ends = np.cumsum([target.shape[1] for target in targets])
    spans = [slice(end - target.shape[1], end) for end, target in zip(ends, targets, strict=True)]
    folds = int(fold.max()) + 1
    outer = np.zeros_like(columns)
    inner = np.zeros((folds, *columns.shape))
    for held in range(folds):
        fitted = np.flatnonzero(fold != held)
        tested = np.flatnonzero(fold == held)
        own = folds_of(pids[fitted], INNER_FOLDS, seed + 1 + held)
        tried = np.zeros((len(PENALTIES), len(fitted), columns.shape[1]))
        differences = np.zeros((len(fitted), columns.shape[1]))
        for part in range(int(own.max()) + 1):
            some, others = fitted[own != part], own == part
            fit = Fit(features[some], columns[some])
            differences[others] = columns[fitted[others]] - columns[some].mean(axis=0)
            for number, penalty in enumerate(PENALTIES):
                tried[number, others] = fit.predictions(features[fitted[others]], penalty)
        errors = ((tried - differences) ** 2).sum(axis=1)
        fit = Fit(features[fitted], columns[fitted])
        of_penalty = [fit.predictions(features[tested], penalty) for penalty in PENALTIES]
        for span in spans:
            best = int(errors[:, span].sum(axis=1).argmin())
            outer[tested, span] = of_penalty[best][:, span]
            inner[held, fitted, span] = tried[best][:, span]
    return [(outer[:, span], inner[:, :, span]) for span in spans]
