"""The interval of a mean difference: against loop-written references, and by its invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bdlf.reporting import difference_interval
from bdlf.reporting.intervals import estimate, holm, query_values
from bdlf.system.errors import InputError


def draw(random, deviations, runs, pids):
    """(runs, queries) differences around 0; `pids` are 0, 1, ..."""
    run, identity, interaction, query = deviations
    identities = pids.max() + 1
    shared = random.normal(size=identities) * identity + random.normal(size=(runs, identities)) * interaction
    noise = random.normal(size=(runs, len(pids))) * query
    return random.normal(size=(runs, 1)) * run + shared[:, pids] + noise


def analysis(cells):
    """A, B and C of the plain two-way analysis of variance of `cells` (runs, identities), by loops."""
    runs, identities = len(cells), len(cells[0])
    grand = sum(sum(row) for row in cells) / (runs * identities)
    of_run = [sum(row) / identities for row in cells]
    of_identity = [sum(row[i] for row in cells) / runs for i in range(identities)]
    square_run = identities * sum((mean - grand) ** 2 for mean in of_run) / (runs - 1)
    square_identity = runs * sum((mean - grand) ** 2 for mean in of_identity) / (identities - 1)
    square_rest = 0.0
    for r in range(runs):
        for i in range(identities):
            square_rest += (cells[r][i] - of_run[r] - of_identity[i] + grand) ** 2
    square_rest /= (runs - 1) * (identities - 1)
    return [square / (runs * identities) for square in (square_run, square_identity, square_rest)]


def expected_balanced(cells):
    """Variance of the mean and degrees of freedom of the balanced case, as the docstring of `estimate` has them."""
    runs, identities = cells.shape
    a, b, c = analysis(cells)
    variance = c + max(a - c, 0) + max(b - c, 0)
    spread = a**2 / (runs - 1) + b**2 / (identities - 1) + c**2 / ((runs - 1) * (identities - 1))
    return variance, variance**2 / spread


@pytest.mark.parametrize("deviations", [(5, 4, 9, 12), (0.1, 4, 9, 12), (5, 0.1, 9, 12), (0, 0, 9, 12)])
def test_the_balanced_case_is_the_plain_analysis_of_variance(deviations):
    random = np.random.default_rng(1)
    for runs, identities, queries in ((2, 5, 3), (4, 7, 1), (3, 11, 4)):
        pids = np.repeat(np.arange(identities), queries)
        values = 2 + draw(random, deviations, runs, pids)
        cells = values.reshape(runs, identities, queries).mean(axis=2)
        found = estimate(values, pids * 7 - 20)
        variance, degrees = expected_balanced(cells)
        a, b, c = analysis(cells)
        components = (runs * (a - c), identities * (b - c), runs * identities * c)
        assert found.mean == pytest.approx(values.mean())
        assert found.standard_error == pytest.approx(math.sqrt(variance))
        assert found.degrees == pytest.approx(degrees)
        assert found.unclamped == pytest.approx(components)
        assert (found.run, found.identity, found.rest) == pytest.approx([max(one, 0) for one in components])
        assert (found.runs, found.identities) == (runs, identities)
        half = stats.t.ppf(0.95, degrees) * math.sqrt(variance)
        wanted = (values.mean(), values.mean() - half, values.mean() + half)
        assert tuple(difference_interval(values, pids, level=0.9)) == pytest.approx(wanted)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_component_below_0_takes_nothing_from_the_variance(axis):
    random = np.random.default_rng(2)
    cells = random.normal(3, 9, (4, 9))
    cells -= cells.mean(axis=1 - axis, keepdims=True)  # runs (0) or identities (1) do not differ at all
    squares = analysis(cells)
    assert squares[axis] == pytest.approx(0)
    found = estimate(cells, np.arange(9))
    assert found.standard_error**2 == pytest.approx(max(squares[1 - axis], squares[2]))
    assert (found.run, found.identity)[axis] == 0 > found.unclamped[axis]


def slow_unequal(values, pids):
    """The variance of the mean and its degrees of freedom, query by query and identity by identity."""
    runs, known = len(values), sorted({int(pid) for pid in pids[np.isfinite(values).any(axis=0)]})

    def pull(row, valid, pid):
        """What the queries of `pid` add to the run's mean, seen from that mean."""
        kept = [q for q in range(len(row)) if valid[q]]
        mean = sum(row[q] for q in kept) / len(kept)
        return sum(row[q] - mean for q in kept if pids[q] == pid) / len(kept)

    def weight(valid, pid):
        return sum(bool(valid[q]) for q in range(len(valid)) if pids[q] == pid) / valid.sum()

    valid = np.isfinite(values)
    pulls = np.array([[pull(values[r], valid[r], pid) for pid in known] for r in range(runs)])
    weights = np.array([[weight(valid[r], pid) for pid in known] for r in range(runs)])
    # the effect of one identity alone, of size 1, as the mean pulls show it
    form = np.array(
        [
            [np.mean([pull((pids == one).astype(float), valid[r], pid) for r in range(runs)]) for one in known]
            for pid in known
        ]
    )
    true_share = sum(weights[:, k].mean() ** 2 for k in range(len(known)))
    seen_share = sum(entry**2 for entry in form.reshape(-1))
    freedom = seen_share**2 / np.trace(form @ form.T @ form @ form.T)
    b = sum(pulls[:, k].mean() ** 2 for k in range(len(known))) * true_share / seen_share
    means = [np.mean(values[r][valid[r]]) for r in range(runs)]
    if runs == 1:
        return b, freedom
    left = expected = all_weights = holders = 0.0
    for k in range(len(known)):
        having = [r for r in range(runs) if weights[r, k] > 0]
        centre = sum(pulls[r, k] for r in having) / sum(weights[r, k] for r in having)
        holders += len(having) - 1
        for r in having:
            left += (pulls[r, k] - weights[r, k] * centre) ** 2
            expected += weights[r, k] ** 2 * (1 - 1 / len(having))
            all_weights += weights[r, k] ** 2
    c = left / (expected * seen_share / true_share) * all_weights / runs / runs
    a = np.var(means, ddof=1) / runs
    variance = c + max(a - c, 0) + max(b - c, 0)
    rest_freedom = holders * freedom / len(known)
    return variance, variance**2 / (a**2 / (runs - 1) + b**2 / freedom + c**2 / rest_freedom)


@pytest.mark.parametrize("missing", ["none", "same in all runs", "other in every run"])
@pytest.mark.parametrize("runs", [1, 2, 4])
def test_unequal_identities_and_missing_values_against_a_slow_reference(missing, runs):
    random = np.random.default_rng(3)
    pids = random.permutation(np.repeat([4, 9, 11, 30, 31, 32], [3, 9, 1, 6, 2, 7]))
    values = draw(random, (5, 6, 9, 12), runs, pids)
    if missing != "none":
        shape = (1, len(pids)) if missing == "same in all runs" else values.shape
        holes = np.broadcast_to(random.random(shape) < 0.3, values.shape) | (pids == 32)
        values[holes] = np.nan
    found = estimate(values, pids)
    variance, degrees = slow_unequal(values, pids)
    assert found.mean == pytest.approx(np.mean([np.mean(row[np.isfinite(row)]) for row in values]))
    assert found.standard_error**2 == pytest.approx(variance)
    assert found.degrees == pytest.approx(degrees)
    assert found.identities == (6 if missing == "none" else 5), "an identity without a valid query does not count"


def test_order_of_runs_and_queries_names_of_identities_and_units_do_not_matter():
    random = np.random.default_rng(4)
    pids = np.repeat(np.arange(6), [3, 9, 1, 6, 2, 7])
    values = draw(random, (5, 6, 9, 12), 4, pids)
    values[random.random(values.shape) < 0.2] = np.nan
    mean, low, high = difference_interval(values, pids)
    rows, columns = random.permutation(4), random.permutation(len(pids))
    names = random.permutation(100)[:6]
    assert difference_interval(values[rows][:, columns], names[pids[columns]]) == pytest.approx((mean, low, high))
    assert difference_interval(-0.01 * values, pids) == pytest.approx((-0.01 * mean, -0.01 * high, -0.01 * low))
    shifted = tuple(difference_interval(values + 50, pids))
    assert shifted == pytest.approx((mean + 50, low + 50, high + 50))


def test_queries_of_one_identity_count_as_their_mean():
    random = np.random.default_rng(5)
    pids = np.repeat(np.arange(12), 5)
    values = draw(random, (2, 3, 4, 8), 3, pids)
    cells = values.reshape(3, 12, 5).mean(axis=2)
    assert difference_interval(values, pids) == pytest.approx(difference_interval(cells, np.arange(12)))


def test_one_run_speaks_of_identities_alone():
    random = np.random.default_rng(6)
    cells = random.normal(4, 10, (1, 15))
    found = estimate(np.repeat(cells, 3, axis=1), np.repeat(np.arange(15), 3))
    assert found.runs == 1
    assert found.standard_error == pytest.approx(cells.std(ddof=1) / math.sqrt(15))
    assert found.degrees == pytest.approx(14)
    assert found.identity == pytest.approx(cells.var(ddof=1))
    assert math.isnan(found.run) and math.isnan(found.rest), "a single run does not separate them"


def laid_out(blocks, pids, *, offset):
    """Blocks (runs, queries) of several splits in disjoint columns, NaN elsewhere; identities shifted by `offset`."""
    rows, columns = sum(len(block) for block in blocks), sum(block.shape[1] for block in blocks)
    values, names, row, column = np.full((rows, columns), np.nan), [], 0, 0
    for number, block in enumerate(blocks):
        values[row : row + len(block), column : column + block.shape[1]] = block
        names.append(pids + number * offset)
        row, column = row + len(block), column + block.shape[1]
    return values, np.concatenate(names)


def test_with_one_run_per_split_the_runs_carry_everything():
    random = np.random.default_rng(7)
    pids = np.repeat(np.arange(5), 4)
    blocks = [draw(random, (5, 6, 9, 12), 1, pids) for _ in range(4)]
    values, names = laid_out(blocks, pids, offset=5)
    found = estimate(values, names)
    means = [block.mean() for block in blocks]
    assert found.mean == pytest.approx(np.mean(means))
    assert found.standard_error == pytest.approx(np.std(means, ddof=1) / 2)
    assert found.degrees == 3
    assert (found.run, found.identity, found.rest) == (pytest.approx(np.var(means, ddof=1)), 0, 0)
    assert (found.runs, found.identities) == (4, 20)
    assert estimate(*laid_out(blocks, pids, offset=0)) == found, "identities are nested in their split"


@pytest.mark.parametrize("counts", [(3, 3), (2, 4, 3), (3, 1), (1, 2, 4)])
def test_splits_with_several_runs_are_pooled(counts):
    random = np.random.default_rng(sum(counts))
    pids, runs = np.repeat(np.arange(8), 3), sum(counts)
    blocks = [draw(random, (5, 6, 9, 12), count, pids) for count in counts]
    values, names = laid_out(blocks, pids, offset=8)
    cells = [block.reshape(len(block), 8, 3).mean(axis=2) for block in blocks]
    several = [block for block in cells if len(block) > 1]

    deviations = sum(((block.mean(axis=1) - block.mean()) ** 2).sum() for block in several)
    freedom = sum(len(block) - 1 for block in several)
    a = deviations / freedom / runs
    shares = [(len(block) / runs) ** 2 * np.var(block.mean(axis=0), ddof=1) / 8 for block in cells]
    b, b_freedom = sum(shares), sum(shares) ** 2 / sum(share**2 / 7 for share in shares)
    rests = [len(block) * len(block) * analysis(block)[2] for block in several]  # run count x variance of a run's mean
    pooled = sum(len(block) for block in several)
    c = sum(rests) / pooled / runs
    c_freedom = sum(rests) ** 2 / sum(
        rest**2 / ((len(block) - 1) * 7) for rest, block in zip(rests, several, strict=True)
    )

    variance = c + max(a - c, 0) + max(b - c, 0)
    degrees = variance**2 / (a**2 / freedom + b**2 / b_freedom + c**2 / c_freedom)
    order = random.permutation(runs)
    for found in (estimate(values, names), estimate(values[order], names), estimate(values, names % 8)):
        assert found.mean == pytest.approx(np.mean([mean for block in cells for mean in block.mean(axis=1)]))
        assert found.standard_error**2 == pytest.approx(variance)
        assert found.degrees == pytest.approx(degrees)
        assert found.identities == 8 * len(counts)
        again = found.unclamped[0] / runs + found.unclamped[1] / found.identities
        again += found.unclamped[2] / (runs * found.identities)
        assert again == pytest.approx(a + b - c), "the components add up to the variance of the mean"


def test_runs_linked_by_a_third_are_of_one_split():
    random = np.random.default_rng(8)
    pids = np.repeat(np.arange(6), 3)
    values = draw(random, (5, 6, 9, 12), 3, pids)
    values[0, 9:] = values[2, :6] = np.nan  # the first and the last share no more than the second does with each
    values[0, 6:9] = np.nan
    assert not (np.isfinite(values[0]) & np.isfinite(values[2])).any()
    variance, degrees = slow_unequal(values, pids)
    for rows in ([0, 1, 2], [0, 2, 1], [2, 0, 1]):
        found = estimate(values[rows], pids)
        assert (found.standard_error**2, found.degrees) == (pytest.approx(variance), pytest.approx(degrees))
        assert found.identities == 6


def test_p_value_and_interval_agree_at_every_level():
    random = np.random.default_rng(9)
    pids = np.repeat(np.arange(10), 3)
    excluded = 0
    for shift in (0, 1, 3, 8, 20):
        found = estimate(shift + draw(random, (2, 3, 4, 8), 3, pids), pids)
        assert 0 < found.p_value < 1
        for level in (0.5, 0.8, 0.95, 0.99):
            interval = found.interval(level)
            outside = interval.low > 0 or interval.high < 0
            assert outside == (found.p_value < 1 - level)
            excluded += outside
        edge = found.interval(1 - found.p_value)
        assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0, abs=1e-8 * abs(edge.mean))
    assert 0 < excluded < 20


def test_no_difference_at_all_is_an_interval_of_0_and_not_significant():
    pids = np.repeat(np.arange(4), 3)
    for runs in (1, 3):
        found = estimate(np.zeros((runs, 12)), pids)
        assert tuple(found.interval()) == (0, 0, 0) and found.p_value == 1
    blocks = laid_out([np.zeros((1, 12))] * 3, pids, offset=4)
    assert tuple(difference_interval(*blocks)) == (0, 0, 0) and estimate(*blocks).p_value == 1
    assert estimate(*blocks).degrees == math.inf, "nothing was estimated"
    same = estimate(np.full((2, 12), -2.0), pids)
    assert tuple(same.interval()) == (-2, -2, -2) and same.p_value == 0


VALUES, PIDS = np.random.default_rng(10).normal(size=(2, 6)), np.repeat(np.arange(3), 2)
HALF = np.where(np.arange(6) < 3, VALUES, np.nan)
LAID_OUT = np.full((3, 8), np.nan)
LAID_OUT[:2, :6], LAID_OUT[2, 6:] = VALUES, 1.0


@pytest.mark.parametrize(
    ("differences", "pids", "level", "message"),
    [
        (VALUES, PIDS[:5], 0.95, r"\(2, 6\) and pids \(5,\) do not fit"),
        (VALUES[0], PIDS, 0.95, r"\(6,\) and pids \(6,\) do not fit"),
        (VALUES, VALUES, 0.95, "do not fit"),
        (VALUES, PIDS + 0.5, 0.95, "pids are of type float64: .* whole number"),
        (np.where(PIDS == 0, -np.inf, VALUES), PIDS, 0.95, "infinite value"),
        (VALUES * np.nan, PIDS, 0.95, "no valid query"),
        (VALUES[:0], PIDS, 0.95, "no valid query"),
        (VALUES[:, :0], PIDS[:0], 0.95, "no valid query"),
        (np.stack([VALUES[0], VALUES[1] * np.nan]), PIDS, 0.95, "run 1 .* no valid query"),
        (VALUES, PIDS * 0, 0.95, "single identity: .* at least 2 identities"),
        (VALUES[:1, :2], PIDS[:2], 0.95, "single identity"),
        (HALF, np.array([5, 5, 5, 6, 7, 8]), 0.95, "single identity"),
        (LAID_OUT, np.array([0, 0, 1, 1, 2, 2, 3, 3]), 0.95, "queries of a split are of a single identity"),
        (VALUES, PIDS, 0, "level=0: "),
        (VALUES, PIDS, 1.0, "level=1.0: "),
        (VALUES, PIDS, 95, "level=95: "),
        (VALUES, PIDS, math.nan, "level=nan: "),
    ],
)
def test_bad_input_is_one_clear_line(differences, pids, level, message):
    with pytest.raises(InputError, match=message) as caught:
        difference_interval(differences, pids, level=level)
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)


def test_holm_against_its_definition():
    random = np.random.default_rng(11)
    for size in (0, 1, 2, 9):
        p_values = (random.random(size) ** 3).round(2)  # with ties
        if size > 2:
            p_values[4] = np.nan
        adjusted = holm(list(p_values))
        made = sorted(p for p in p_values if not math.isnan(p))
        for p, found in zip(p_values, adjusted, strict=True):
            if math.isnan(p):
                assert math.isnan(found)
                continue
            steps = [(len(made) - k) * made[k] for k in range(len(made)) if made[k] <= p]
            assert found == pytest.approx(min(1, max(steps)))
    assert holm([0.01, math.nan, 0.04, 0.03]) == [pytest.approx(0.03), pytest.approx(math.nan, nan_ok=True), 0.06, 0.06]


def test_queries_without_a_match_have_no_value():
    arrays = {"0.first_match": np.array([[1, 0, 2], [3, 0, 1]]), "0.ap": np.array([[1, np.nan, 0.5], [0.5, np.nan, 1]])}
    values = query_values(arrays, 0)
    np.testing.assert_array_equal(values["rank1"], [50, np.nan, 50])
    np.testing.assert_array_equal(values["mAP"], [75, np.nan, 75])
