"""Computes which true differences a table could have found, and how many seeds it needs to find a given one.

The variances come from the table's own differences. The design is that of `bdlf.reporting.intervals`: every seed gives
one pair of runs, and all runs are scored on the same test identities. More seeds average out the runs and their
interaction with the identities. They do not average out the identities themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from bdlf.reporting.intervals import Estimate
from bdlf.system.errors import InputError

MOST_SEEDS = 10_000
"""The largest number of seeds that `seeds_needed` considers."""


@dataclass(frozen=True)
class Components:
    """The variances of a difference, in its squared unit: of runs, of identities, of run x identity means.

    With `n` seeds the mean difference has the variance run / n + identity / identities + rest / (n identities).
    Raises InputError on a variance that is negative or not finite, and on fewer than 2 identities.
    """

    run: float
    identity: float
    rest: float
    identities: int

    def __post_init__(self) -> None:
        for name in ("run", "identity", "rest"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"variance {name}={value}: give a finite number of 0 or more")
        if self.identities < 2:
            raise InputError(f"identities={self.identities}: at least 2 are needed")


def pooled(estimates: Sequence[Estimate]) -> Components:
    """The components of a table: the mean over its differences, weighted by runs - 1; never below 0.

    The average is taken before negative components are set to 0. Differences over a single run are left out, because
    they do not separate the components. Raises InputError if no difference has 2 runs or more.
    """
    usable = [one for one in estimates if one.runs > 1]
    if not usable:
        raise InputError("no difference has 2 runs or more: the noise of training is unknown; train a second seed")
    weights = np.array([one.runs - 1 for one in usable], dtype=float)
    run, identity, rest = np.average([one.unclamped for one in usable], axis=0, weights=weights).clip(0).tolist()
    identities = round(float(np.average([one.identities for one in usable], weights=weights)))
    return Components(run, identity, rest, identities)


def detectable(components: Components, seeds: int, *, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest true difference that `seeds` pairs of runs find with probability `power`, in the differences' unit.

    "Found" means that the interval at `level` excludes 0. The value is (t_{(1 + level) / 2} + t_{power}) x standard
    error. Student's t has the degrees of freedom that `estimate` computes, at the expected mean squares. The formula
    takes the standard error as known, which flatters few seeds a little: where it promises 80 %, 10,000 simulated
    replications under the components of `difference_interval` found the difference in 74 to 78 % of the cases with 3
    seeds, 76 to 80 % with 5, and 79 to 80 % with 10 and 20.

    Raises InputError on fewer than 2 seeds (one run says nothing of the noise of training), unless 0 < `level` < 1, and
    unless `power` lies between (1 - `level`) / 2 and 1.
    """
    if seeds < 2:
        raise InputError(f"seeds={seeds}: at least 2 are needed, because one run says nothing of the noise of training")
    return float(_detectable(components, np.array([seeds]), power, level)[0])


def seeds_needed(components: Components, difference: float, *, power: float = 0.8, level: float = 0.95) -> int | None:
    """The smallest number of seeds, from 2 on, for which `detectable` is at most `difference` (above 0).

    None if `MOST_SEEDS` seeds are not enough: the test identities alone are then too noisy, and only a larger test set
    would help. Raises InputError as `detectable` does, and unless `difference` is a finite number above 0.
    """
    if not (math.isfinite(difference) and difference > 0):
        raise InputError(f"difference={difference}: give a finite number above 0")
    seeds = np.arange(2, MOST_SEEDS + 1)
    enough = _detectable(components, seeds, power, level) <= difference
    return int(seeds[np.argmax(enough)]) if enough.any() else None


def _detectable(components: Components, seeds: np.ndarray, power: float, level: float) -> np.ndarray:
    """`detectable` for every entry of `seeds` (n,)."""
    if not 0 < level < 1:
        raise InputError(f"level={level}: give a number between 0 and 1, like 0.95")
    if not (1 - level) / 2 < power < 1:
        raise InputError(f"power={power}: give a number between {(1 - level) / 2:g} and 1, like 0.8")
    identities = components.identities
    rest = components.rest / (seeds * identities)
    runs, shared = components.run / seeds + rest, components.identity / identities + rest
    variance = runs + shared - rest
    spread = (runs**2 + rest**2 / (identities - 1)) / (seeds - 1) + shared**2 / (identities - 1)
    with np.errstate(invalid="ignore"):
        degrees = np.where(spread > 0, variance**2 / spread, np.inf)
    quantiles: np.ndarray = stdtrit(degrees, (1 + level) / 2) + stdtrit(degrees, power)
    return quantiles * np.sqrt(variance)
