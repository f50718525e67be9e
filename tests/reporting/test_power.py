"""The power of a table: variance components pooled over its differences, and the seeds that a difference needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bdlf.reporting.intervals import Estimate, estimate
from bdlf.reporting.power import MOST_SEEDS, Components, detectable, pooled, seeds_needed
from bdlf.system.errors import InputError

RECORDED = Components(4.7**2, 3.1**2, 23.8**2 + 16.6**2 / 8, 64)


def cells(random, components, runs):
    """(runs, identities) differences around 0."""
    shape = (runs, components.identities)
    values = random.normal(size=(runs, 1)) * math.sqrt(components.run)
    values = values + random.normal(size=shape[1]) * math.sqrt(components.identity)
    return values + random.normal(size=shape) * math.sqrt(components.rest)


def slow_detectable(components, seeds, power, level):
    n, i = seeds, components.identities
    square_run = i * components.run + components.rest
    square_identity = n * components.identity + components.rest
    variance = (square_run + square_identity - components.rest) / (n * i)
    spread = square_run**2 / (n - 1) + square_identity**2 / (i - 1) + components.rest**2 / ((n - 1) * (i - 1))
    student = stats.t((variance * n * i) ** 2 / spread)
    return (student.ppf((1 + level) / 2) + student.ppf(power)) * math.sqrt(variance)


def test_detectable_against_the_mean_squares_written_out():
    for components in (RECORDED, Components(0, 36, 128, 20), Components(3, 0, 7, 2), Components(2, 0, 0, 5)):
        for seeds, power, level in ((2, 0.8, 0.95), (3, 0.9, 0.95), (10, 0.6, 0.99)):
            found = detectable(components, seeds, power=power, level=level)
            assert found == pytest.approx(slow_detectable(components, seeds, power, level))
    assert detectable(Components(0, 0, 0, 5), 3) == 0


def test_a_detectable_difference_is_found_in_about_the_promised_share_of_cases():
    random = np.random.default_rng(0)
    for seeds, low, high in ((3, 0.72, 0.84), (10, 0.75, 0.85)):
        difference = detectable(RECORDED, seeds)
        found = [
            estimate(difference + cells(random, RECORDED, seeds), np.arange(64)).p_value < 0.05 for _ in range(800)
        ]
        assert low < np.mean(found) < high


def test_seeds_needed_is_the_first_number_that_suffices():
    for difference in (2.0, 5.0, 20.0):
        seeds = seeds_needed(RECORDED, difference)
        assert seeds == next(n for n in range(2, 200) if detectable(RECORDED, n) <= difference)
    assert seeds_needed(RECORDED, 500.0) == 2
    more = seeds_needed(RECORDED, 2.0, power=0.9), seeds_needed(RECORDED, 2.0, level=0.99)
    assert min(more) > seeds_needed(RECORDED, 2.0)


def test_no_number_of_seeds_suffices_where_the_identities_alone_are_too_noisy():
    noisy = Components(0, 36, 100, 64)
    floor = slow_detectable(noisy, MOST_SEEDS, 0.8, 0.95)
    assert seeds_needed(noisy, 0.999 * floor) is None
    assert seeds_needed(noisy, 1.05 * floor) is not None


def test_pooled_components_are_averaged_before_they_are_clamped():
    one = Estimate(1, 1, 5, runs=3, identities=10, unclamped=(-2.0, 4.0, 8.0))
    other = Estimate(1, 1, 5, runs=5, identities=10, unclamped=(10.0, -8.0, 2.0))
    single = Estimate(1, 1, 9, runs=1, identities=10, unclamped=(math.nan, 90.0, math.nan))
    found = pooled([one, other, single])
    assert (found.run, found.identity, found.rest, found.identities) == (pytest.approx(6), 0, pytest.approx(4), 10)
    with pytest.raises(InputError, match=r"no difference has 2 runs or more: .* train a second seed"):
        pooled([single])


def test_pooling_recovers_the_components_of_few_runs():
    random = np.random.default_rng(1)
    true = Components(1, 36, 128, 64)
    found = pooled([estimate(cells(random, true, 3), np.arange(64)) for _ in range(400)])
    assert found.identities == 64
    assert (found.identity, found.rest) == pytest.approx((36, 128), rel=0.05)
    assert found.run == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Components(-1, 1, 1, 9), "variance run=-1: "),
        (lambda: Components(1, math.nan, 1, 9), "variance identity=nan: "),
        (lambda: Components(1, 1, math.inf, 9), "variance rest=inf: "),
        (lambda: Components(1, 1, 1, 1), "identities=1: at least 2"),
        (lambda: detectable(RECORDED, 1), "seeds=1: at least 2"),
        (lambda: detectable(RECORDED, 3, level=95), "level=95: "),
        (lambda: detectable(RECORDED, 3, power=1.0), "power=1.0: "),
        (lambda: detectable(RECORDED, 3, power=0.01), "power=0.01: "),
        (lambda: seeds_needed(RECORDED, 0.0), "difference=0.0: "),
        (lambda: seeds_needed(RECORDED, math.nan), "difference=nan: "),
        (lambda: seeds_needed(RECORDED, 2.0, power=80), "power=80: "),
    ],
)
def test_bad_input_is_one_clear_line(wrong, message):
    with pytest.raises(InputError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)
