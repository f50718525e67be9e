"""The interval of a mean difference holds the truth as often as it claims."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bdlf.reporting import difference_interval

COMPONENTS = [(4.7, 3.1, 23.8, 16.6), (1, 6, 15, 15), (0, 6, 10, 15)]
"""Standard deviations of run, identity, run x identity and query."""
HALF_WIDTHS = {3: 13.4, 5: 6.5, 10: 3.9, 20: 2.7}
"""Runs: half width that the first of the `COMPONENTS` must not exceed by more than 10 %."""


def draw(random, deviations, runs, pids):
    """(runs, queries) differences around 0; `pids` are 0, 1, ..."""
    run, identity, interaction, query = deviations
    identities = pids.max() + 1
    shared = random.normal(size=identities) * identity + random.normal(size=(runs, identities)) * interaction
    noise = random.normal(size=(runs, len(pids))) * query
    return random.normal(size=(runs, 1)) * run + shared[:, pids] + noise


def coverage(deviations, runs, replications, *, queries=1, seed=0):
    """Share of 95 % intervals that hold the true 0, and their mean half width; 64 identities x 8 queries.

    With `queries` = 1 the mean over an identity's 8 queries is drawn at once.
    """
    random = np.random.default_rng(seed)
    run, identity, interaction, query = deviations
    if queries == 1:
        interaction, query = math.hypot(interaction, query / math.sqrt(8)), 0
    pids = np.repeat(np.arange(64), queries)
    intervals = [
        difference_interval(draw(random, (run, identity, interaction, query), runs, pids), pids)
        for _ in range(replications)
    ]
    covered = np.mean([low <= 0 <= high for _, low, high in intervals])
    return covered, np.mean([high - mean for mean, _, high in intervals])


def test_coverage_is_what_the_interval_claims_where_independent_queries_would_not_reach_it():
    covered, width = coverage(COMPONENTS[0], 3, 300, queries=8)
    assert 0.93 <= covered <= 0.99 and width < 1.1 * HALF_WIDTHS[3]

    random, pids, naive = np.random.default_rng(0), np.repeat(np.arange(64), 8), []
    for _ in range(300):  # the percentile bootstrap of runs and queries
        values = draw(random, COMPONENTS[0], 3, pids)
        drawn = random.multinomial(512, np.full(512, 1 / 512), size=200) @ values.T / 512
        means = np.take_along_axis(drawn, random.integers(3, size=(200, 3)), axis=1).mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        naive.append(low <= 0 <= high)
    assert np.mean(naive) < 0.88 < covered


def test_coverage_with_unequal_identities_and_splits():
    random, hits = np.random.default_rng(12), {"unequal": 0, "splits": 0}
    for _ in range(300):
        pids = np.repeat(np.arange(30), random.integers(8, 41, 30))
        values = draw(random, COMPONENTS[2], 5, pids)
        values[:, random.random(len(pids)) < 0.1] = np.nan
        interval = difference_interval(values, pids)
        hits["unequal"] += interval.low <= 0 <= interval.high
        pids = np.repeat(np.arange(20), 4)
        values = np.full((6, 3 * len(pids)), np.nan)  # three splits with two runs each, in disjoint columns
        for split in range(3):
            columns = slice(split * len(pids), (split + 1) * len(pids))
            values[2 * split : 2 * split + 2, columns] = draw(random, COMPONENTS[2], 2, pids)
        interval = difference_interval(values, np.concatenate([pids, pids + 20, pids + 40]))
        hits["splits"] += interval.low <= 0 <= interval.high
    assert all(0.92 <= hit / 300 <= 0.995 for hit in hits.values()), hits


@pytest.mark.slow
@pytest.mark.parametrize("runs", HALF_WIDTHS)
@pytest.mark.parametrize("deviations", COMPONENTS)
def test_coverage_of_the_95_percent_interval(deviations, runs):
    covered, width = coverage(deviations, runs, 4000)
    assert 0.93 <= covered <= 0.99
    assert deviations != COMPONENTS[0] or width <= 1.1 * HALF_WIDTHS[runs]
    if runs == 3:
        again, same = coverage(deviations, runs, 1000, queries=8, seed=1)
        assert 0.93 <= again <= 0.99 and same == pytest.approx(width, rel=0.1)
