"""Scores with intervals over identities: every score is a mean of ratios of sums over identities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Score:
    """A score in percent, and how far each identity moves it.

    Scores are sums over identities, so that a mean or a difference of scores has an interval too: the pulls of an
    identity add up. Identities are thus paired where two features are compared on the same images.
    """

    value: float
    pulls: np.ndarray
    """(i,) how far each identity moves the score from where it would be without that identity, in points; they sum
    to 0. 0 for an identity that takes no part."""

    @property
    def identities(self) -> int:
        """The number of identities that take part."""
        return int(np.count_nonzero(~np.isnan(self.pulls)))

    def interval(self) -> tuple[float, float]:
        """The ends of the 95 % interval over identities by Student's t. NaN with fewer than two identities."""
        count = self.identities
        if count < 2:
            return math.nan, math.nan
        error = math.sqrt(float(np.nansum(self.pulls**2)))
        half = float(stdtrit(count - 1, (1 + _LEVEL) / 2)) * error
        return self.value - half, self.value + half


def of_ratios(counted: Float[np.ndarray, "i k"], of: Float[np.ndarray, "i k"], *, scale: float = 100.0) -> Score:
    """`scale` times the mean over k of (sum of `counted` over identities / sum of `of` over identities).

    The pulls are those of the linearised ratio (Cochran, Sampling Techniques, 1977, section 6.3), each enlarged so that
    the variance of k's identities has no bias. Every column of `of` must have a positive sum.
    """
    totals = of.sum(axis=0)
    ratios = counted.sum(axis=0) / totals
    taking = of > 0
    number = taking.sum(axis=0)
    larger = np.sqrt(number / np.maximum(number - 1, 1))
    pulls = scale * ((counted - ratios * of) / totals * larger).mean(axis=1)
    return Score(scale * float(ratios.mean()), np.where(taking.any(axis=1), pulls, np.nan))


def with_noise_of_fits(score: Score, folds: int) -> Score:
    """The score of cross-fitted probes, whose interval covers other people to fit the probes on as well.

    The folds share most of the people that they are fitted on, so their scores are not independent, and the plain
    interval is too narrow. The correction of Nadeau and Bengio (Inference for the Generalization Error, 2003) adds the
    ratio of evaluated to fitting identities, 1 / (folds - 1), to the variance's 1 / folds.
    """
    return Score(score.value, score.pulls * math.sqrt(1 + folds / (folds - 1)))


def mean_of(scores: Sequence[Score]) -> Score:
    """The mean of scores of the same identities. Raises ValueError without a score."""
    if not scores:
        raise ValueError("the mean of no scores")
    taking = np.any([~np.isnan(one.pulls) for one in scores], axis=0)
    pulls = np.sum([np.nan_to_num(one.pulls) for one in scores], axis=0) / len(scores)
    return Score(sum(one.value for one in scores) / len(scores), np.where(taking, pulls, np.nan))


def difference(one: Score, other: Score) -> Score:
    """`one` minus `other`, paired by identity."""
    taking = ~(np.isnan(one.pulls) & np.isnan(other.pulls))
    pulls = np.nan_to_num(one.pulls) - np.nan_to_num(other.pulls)
    return Score(one.value - other.value, np.where(taking, pulls, np.nan))


def rescaled(score: Score, chance: float) -> Score:
    """The score on a scale on which `chance` is 0 and 100 stays 100, so that scores of different kinds compare."""
    factor = 100 / (100 - chance)
    return Score((score.value - chance) * factor, score.pulls * factor)


def by_identity(values: Float[np.ndarray, "n k"], place: Int[np.ndarray, " n"], identities: int) -> np.ndarray:
    """(identities, k) sums of `values` over the rows of each identity; `place` (n,) is the identity of each row."""
    sums = np.zeros((identities, values.shape[1]))
    np.add.at(sums, place, values)
    return sums
