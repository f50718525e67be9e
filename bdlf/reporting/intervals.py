"""Computes how far the mean difference between two rows of a table can be trusted.

Two rows are compared run by run (the same seed, and for RegDB the same split) and query by query. Neither the runs nor
the queries are independent draws: all queries of a run share its weights, and the 8 to 40 queries of an identity share
the person. The model is therefore one of crossed random effects [ours]: the difference of a query is

    mean + effect of the run + effect of the identity + interaction of run and identity + noise of the query.

The classical two-way analysis of variance of the run x identity means separates these variances (Searle, Casella and
McCulloch, Variance Components, 1992, section 4.3), and Satterthwaite (1946) gives the degrees of freedom of their sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtr, stdtrit

from bdlf.system.errors import InputError


class Interval(NamedTuple):
    """A mean difference and the two ends of its interval, in the unit of the differences."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """The mean of the differences, how uncertain it is, and where the uncertainty comes from."""

    mean: float
    """The mean over the queries within every run, then over the runs, in the unit of the differences."""
    standard_error: float
    """In the same unit. With a single run it holds the identities' share alone, without the noise of training."""
    degrees: float
    """Satterthwaite's degrees of freedom of `standard_error`; infinite where the standard error is 0."""
    runs: int
    identities: int
    """Identities with a valid query. An identity counts once for every split in which it occurs."""
    unclamped: tuple[float, float, float]
    """The variance components of run, identity and rest in squared units. They may be negative, so their average over
    several estimates has no bias. They are scaled such that run / runs + identity / identities + rest / (runs *
    identities) is the variance of the mean. With a single run nothing separates them: run and rest are NaN, and
    identity stands for both identity and rest. With one run per split all is in run, and the others are 0."""

    @property
    def run(self) -> float:
        """The variance between runs, squared units, at least 0; NaN with a single run."""
        return _at_least_0(self.unclamped[0])

    @property
    def identity(self) -> float:
        """The variance between identities, squared units, at least 0."""
        return _at_least_0(self.unclamped[1])

    @property
    def rest(self) -> float:
        """The variance of a run x identity mean (interaction and queries), squared units; NaN with a single run."""
        return _at_least_0(self.unclamped[2])

    @property
    def p_value(self) -> float:
        """Two-sided, of a true mean of 0, in 0..1. It is below 1 - level exactly where the interval excludes 0."""
        if self.standard_error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stdtr(self.degrees, -abs(self.mean) / self.standard_error))

    def interval(self, level: float = 0.95) -> Interval:
        """The two-sided interval by Student's t. Raises InputError unless 0 < `level` < 1."""
        if not 0 < level < 1:
            raise InputError(f"level={level}: give a number between 0 and 1, like 0.95")
        if self.standard_error == 0:
            return Interval(self.mean, self.mean, self.mean)
        half = float(stdtrit(self.degrees, (1 + level) / 2)) * self.standard_error
        return Interval(self.mean, self.mean - half, self.mean + half)


class _Square(NamedTuple):
    """An estimated variance and its degrees of freedom."""

    value: float
    degrees: float


class _Stratum(NamedTuple):
    """Mean squares of runs that share queries: all are variances of a mean over the stratum's identities."""

    runs: int
    identities: int
    between: _Square
    """Between the runs' means; with one run 0, with 0 degrees."""
    shared: _Square
    """Of the stratum's mean, as far as its identities move it, their interaction with the runs included."""
    rest: _Square
    """Of one run's mean, as far as the interaction and the queries move it; with one run 0, with 0 degrees."""


def difference_interval(
    differences: Float[np.ndarray, "runs queries"], pids: Int[np.ndarray, " queries"], *, level: float = 0.95
) -> Interval:
    """The mean difference between two rows and its interval, over new runs and new identities.

    `differences[r, q]` is the difference between the two rows' values of query q in their r-th pair of runs, in any
    unit; NaN where a query has no value. `pids[q]` is the identity of query q. `level` is the coverage wanted, in 0..1.
    The mean is taken over the queries within every run, then over the runs. See `estimate` for the method.

    With a single run the interval covers new identities alone: the noise of training is not in it.

    Simulated coverage of the 95 % interval and its mean half width, with 64 identities x 8 queries, 10,000 replications
    for each figure. The four standard deviations are those of run, identity, run x identity and query:

    | standard deviations   |       3 runs |       5 runs |     10 runs |     20 runs |
    |-----------------------|--------------|--------------|-------------|-------------|
    | 4.7, 3.1, 23.8, 16.6  | 0.954, 11.86 |  0.955, 6.53 | 0.950, 3.98 | 0.949, 2.70 |
    | 1, 6, 15, 15          | 0.972,  4.48 |  0.969, 2.91 | 0.957, 2.14 | 0.953, 1.81 |
    | 0, 6, 10, 15          | 0.973,  2.89 |  0.963, 2.17 | 0.953, 1.79 | 0.950, 1.64 |

    Raises InputError (a ValueError) as `estimate` does, and unless 0 < `level` < 1.
    """
    return estimate(differences, pids).interval(level)


def estimate(differences: Float[np.ndarray, "runs queries"], pids: Int[np.ndarray, " queries"]) -> Estimate:
    """The mean of `differences` (runs, queries), its standard error, and its variance components.

    `pids` (queries,) holds the identity of every query as a whole number. NaN marks a query without a value.

    For R runs and I identities with equally many queries this is the plain analysis of variance of the run x identity
    means. With A = MS_run / (R I), B = MS_identity / (R I) and C = MS_rest / (R I), the variance of the mean is
    A + B - C, and the components are run = R (A - C), identity = I (B - C), rest = R I C. We differ in one point: a
    negative component counts as 0 in the variance of the mean, which is then C + max(A - C, 0) + max(B - C, 0). The
    variance is thus at least as large as A, B and C. The degrees of freedom are those of Satterthwaite for A + B - C:
    variance^2 / (A^2 / (R - 1) + B^2 / (I - 1) + C^2 / ((R - 1) (I - 1))). All three squares stay in this sum when a
    component counts as 0, because all three decide whether it does.

    Unequal numbers of queries: an identity weighs in a run as its share of the run's valid queries. The mean is a
    ratio, so the mean squares are those of its linearised terms, weight x (identity's mean - run's mean). They are
    scaled to be unbiased where all identities have the same variance, and I - 1 becomes the degrees of freedom of that
    quadratic form (Bell and McCaffrey, 2002). Runs whose NaNs differ are scaled likewise, approximately.

    Splits (RegDB): runs that share no valid column, directly or through other runs, are of different splits, and their
    identities are other identities, whatever their number. With one run per split the variance between the runs' means
    is the whole variance, with one degree of freedom less than splits. Otherwise the variances between runs and of the
    rest are pooled over the splits with several runs, and each split adds its identities' variance, weighted by the
    square of its share of the runs. The splits themselves are then fixed, as RegDB's protocol fixes them.

    Raises InputError (a ValueError) on shapes that do not fit, identities that are not whole numbers, infinities, runs
    without a valid query, and a single identity (in all, or in a split where identities must be compared).
    """
    values, labels = _checked(differences, pids)
    strata = [_stratum(values[rows], labels) for rows in _splits(np.isfinite(values))]
    runs, identities = len(values), sum(stratum.identities for stratum in strata)
    if identities < 2:
        raise InputError("the queries are of a single identity: an interval needs at least 2 identities")
    means = np.nanmean(values, axis=1)
    mean = float(means.mean())
    if len(strata) == runs > 1:
        between = float(means.var(ddof=1))
        return _estimate(mean, _Square(between / runs, runs - 1), runs, identities, (between, 0.0, 0.0))
    if any(stratum.identities < 2 for stratum in strata):
        raise InputError("the queries of a split are of a single identity: an interval needs 2 in each; leave it out")
    shared = _sum([_scaled(stratum.shared, (stratum.runs / runs) ** 2) for stratum in strata])
    if runs == 1:
        return _estimate(mean, shared, runs, identities, (math.nan, shared.value * identities, math.nan))
    several = [stratum for stratum in strata if stratum.runs > 1]
    freedom = sum(stratum.between.degrees for stratum in several)
    between = sum(stratum.between.value * stratum.between.degrees for stratum in several) / freedom
    pooled = sum(stratum.runs for stratum in several)
    rest = _scaled(_sum([_scaled(stratum.rest, stratum.runs / pooled) for stratum in several]), 1 / runs)
    squares = (_Square(between / runs, freedom), shared, rest)  # A, B and C of the docstring
    variance = rest.value + max(squares[0].value - rest.value, 0) + max(shared.value - rest.value, 0)
    components = (
        runs * (squares[0].value - rest.value),
        identities * (shared.value - rest.value),
        runs * identities * rest.value,
    )
    return _estimate(mean, _Square(variance, _satterthwaite(variance, squares)), runs, identities, components)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given.

    A comparison is significant at the family-wise level a exactly where its adjusted value is at most a. NaN stands for
    a comparison that was not made: it stays NaN and does not count.
    """
    values = np.asarray(p_values, dtype=float)
    order = [int(place) for place in np.argsort(values) if not math.isnan(values[place])]
    adjusted = np.full(len(values), np.nan)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, float(values[place]) * (len(order) - rank)))
        adjusted[place] = largest
    return [float(value) for value in adjusted]


def query_values(arrays: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """The values of every query in row `row` of a run's `per_query.npz`: "rank1" and "mAP", each (queries,) in percent.

    A value is the mean over the trials in which the query has a match in the gallery: of "found at rank 1" for "rank1",
    of the average precision for "mAP". It is NaN for a query that has no match in any trial. Raises KeyError where
    `arrays` lacks the row.
    """
    first_match, precision = arrays[f"{row}.first_match"], arrays[f"{row}.ap"]
    matched = first_match > 0
    trials = np.maximum(matched.sum(axis=0), 1)
    valid = matched.any(axis=0)
    rank1 = (first_match == 1).sum(axis=0) / trials
    ap = np.where(matched, precision, 0.0).sum(axis=0) / trials
    return {"rank1": 100 * np.where(valid, rank1, np.nan), "mAP": 100 * np.where(valid, ap, np.nan)}


def _checked(differences: np.ndarray, pids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, labels = np.asarray(differences, dtype=float), np.asarray(pids)
    if values.ndim != 2 or labels.ndim != 1 or values.shape[1] != len(labels):
        raise InputError(
            f"differences {values.shape} and pids {labels.shape} do not fit: give (runs, queries) and (queries,)"
        )
    if labels.size and labels.dtype.kind not in "iu":
        raise InputError(f"pids are of type {labels.dtype}: give the identity of every query as a whole number")
    if np.isinf(values).any():
        raise InputError("differences hold an infinite value: give NaN where a query has no value")
    if not len(values) or np.isnan(values).all():
        raise InputError("differences hold no valid query: an interval needs at least one run with values")
    empty = np.isnan(values).all(axis=1)
    if empty.any():
        raise InputError(f"run {int(np.argmax(empty))} of the differences has no valid query: leave it out")
    return values, labels


def _splits(valid: np.ndarray) -> list[list[int]]:
    """Groups of runs, for `valid` (runs, queries): two runs that share a valid query are in one group."""
    left, splits = list(range(len(valid))), []
    while left:
        split = [left.pop(0)]
        for run in split:  # the loop also visits the runs that it appends
            more = [other for other in left if (valid[other] & valid[run]).any()]
            split += more
            left = [other for other in left if other not in more]
        splits.append(sorted(split))
    return splits


def _stratum(values: np.ndarray, pids: np.ndarray) -> _Stratum:
    """The mean squares of runs that share queries; `values` is (runs, queries)."""
    used = np.isfinite(values).any(axis=0)
    order = np.argsort(pids[used], kind="stable")
    values = values[:, used][:, order]
    known, starts = np.unique(pids[used][order], return_index=True)
    runs, identities = len(values), len(known)
    count = np.add.reduceat(np.isfinite(values), starts, axis=1, dtype=float)  # (runs, identities)
    weights = count / count.sum(axis=1, keepdims=True)
    means = np.nanmean(values, axis=1)
    # how far an identity moves its run's mean: weight x (identity's mean - run's mean), 0 where the run lacks it
    moved = np.add.reduceat(np.nan_to_num(values - means[:, None]), starts, axis=1)
    pulls = moved / count.sum(axis=1, keepdims=True)

    none = _Square(0, 0)
    if identities < 2:
        return _Stratum(runs, identities, none, none, none)
    weight = weights.mean(axis=0)
    form = np.diag(weight) - weights.T @ weights / runs  # the identities' effects -> their mean pulls, (i, i)
    product = form @ form.T
    trace = np.trace(product)
    freedom = float(trace**2 / (product**2).sum())  # identities - 1 where all weigh alike
    scale = (weight**2).sum() / trace
    shared = _Square(float((pulls.mean(axis=0) ** 2).sum() * scale), freedom)
    if runs == 1:
        return _Stratum(runs, identities, none, shared, none)

    holders = (count > 0).sum(axis=0)  # runs that have the identity
    centre = pulls.sum(axis=0) / weights.sum(axis=0)
    interaction = ((pulls - weights * centre) ** 2).sum()
    expected = (weights**2 * (1 - 1 / holders)).sum() * trace / (weight**2).sum()
    rest = _Square(
        float(interaction / expected * (weights**2).sum() / runs), float((holders - 1).sum() * freedom / identities)
    )
    return _Stratum(runs, identities, _Square(float(means.var(ddof=1)), runs - 1), shared, rest)


def _estimate(
    mean: float, variance: _Square, runs: int, identities: int, components: tuple[float, float, float]
) -> Estimate:
    degrees = variance.degrees if variance.value > 0 else math.inf
    return Estimate(mean, math.sqrt(variance.value), degrees, runs, identities, components)


def _sum(squares: Sequence[_Square]) -> _Square:
    total = sum(square.value for square in squares)
    return _Square(total, _satterthwaite(total, squares))


def _satterthwaite(variance: float, squares: Iterable[_Square]) -> float:
    """The degrees of freedom of a sum (or difference) of independent `squares` whose value is `variance`."""
    spread = sum(square.value**2 / square.degrees for square in squares)
    return variance**2 / spread if spread > 0 else math.inf


def _scaled(square: _Square, factor: float) -> _Square:
    return _Square(square.value * factor, square.degrees)


def _at_least_0(component: float) -> float:
    return component if math.isnan(component) else max(component, 0.0)
