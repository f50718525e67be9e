"""The cross-fitted ridge regressions, their folds, and the intervals of what they score."""

from __future__ import annotations

import numpy as np
import pytest

from bdlf.inside import ridge
from bdlf.inside.ridge import (
    FOLDS,
    INNER_FOLDS,
    PENALTIES,
    Fit,
    cross_fitted,
    folds_of,
    on_principal_axes,
)
from bdlf.inside.scores import Score, by_identity, difference, mean_of, of_ratios, rescaled, with_noise_of_fits


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    pids = np.repeat(np.arange(20), 6) + 100
    features = random.normal(size=(len(pids), 8)) @ random.normal(size=(8, 8)) + 3
    targets = features[:, :2] + random.normal(size=(len(pids), 2)) + 5
    return features, targets, pids


@pytest.mark.parametrize("penalty", [PENALTIES[0], 1e-2, 1.0])
def test_a_fit_is_that_of_scikit_learn(data, penalty):
    from sklearn.linear_model import Ridge

    features, targets, _ = data
    fit = Fit(features[:70], targets[:70])
    total = ((features[:70] - features[:70].mean(axis=0)) ** 2).sum()
    usual = Ridge(alpha=penalty * total).fit(features[:70], targets[:70])
    expected = usual.predict(features[70:]) - targets[:70].mean(axis=0)
    np.testing.assert_allclose(fit.predictions(features[70:], penalty), expected, atol=1e-9)


@pytest.mark.parametrize("channels", [8, 100], ids=["fewer channels than images", "more"])
def test_turning_the_axes_changes_no_prediction(channels):
    random = np.random.default_rng(1)
    features = random.normal(size=(60, channels)) + 2
    features[:, -1] = features[:, 0]  # a direction less
    targets = random.normal(size=(60, 2))
    turned = on_principal_axes(features)
    assert turned.shape[1] == min(channels - 1, 59)
    before, after = (
        Fit(one[:40], targets[:40]).predictions(one[40:], 1e-2) for one in (features.astype(float), turned)
    )
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_the_leading_axes_are_kept_of_a_wide_feature(monkeypatch):
    monkeypatch.setattr(ridge, "MOST_AXES", 30)
    random = np.random.default_rng(2)
    features = random.normal(size=(60, 40)) * np.linspace(3, 0.1, 40)
    turned = on_principal_axes(features)
    assert turned.shape[1] == 30
    spread = turned.std(axis=0)
    assert (np.diff(spread) <= 1e-9).all()
    assert (turned**2).sum() > 0.99 * ((features - features.mean(axis=0)) ** 2).sum()


def test_folds_keep_people_together_and_are_even():
    pids = np.array([7, 3, 7, 5, 9, 9, 3, 11, 2])
    fold = folds_of(pids, 4, seed=0)
    assert all(len(set(fold[pids == pid])) == 1 for pid in pids)
    counts = np.bincount([fold[pids == pid][0] for pid in np.unique(pids)])
    assert len(counts) == 4 and counts.max() - counts.min() <= 1
    assert folds_of(pids, 99, seed=0).max() == 5  # no more folds than people
    assert (folds_of(pids, 4, seed=1) != fold).any()


def test_nobody_is_evaluated_by_a_probe_that_has_seen_them(data):
    """Neither the weights, nor the penalty, nor the mean of a fold's predictions depend on the fold's own targets."""
    features, targets, pids = data
    fold = folds_of(pids, FOLDS, 0)
    ((outer, inner),) = cross_fitted(features, [targets], pids, fold, seed=0)
    for held in range(FOLDS):
        changed = targets.copy()
        changed[fold == held] *= -50
        ((other, other_inner),) = cross_fitted(features, [changed], pids, fold, seed=0)
        np.testing.assert_array_equal(other[fold == held], outer[fold == held])
        np.testing.assert_array_equal(other_inner[held], inner[held])
        assert (other[fold != held] != outer[fold != held]).any()


def test_each_target_has_the_penalty_that_suits_it(data):
    features, _, pids = data
    random = np.random.default_rng(3)
    fold = folds_of(pids, FOLDS, 0)
    noise = random.normal(size=(len(pids), 1))
    clear = features[:, :1] * 2.0
    ((together, _), (of_noise, _)) = cross_fitted(features, [clear, noise], pids, fold, seed=0)
    ((alone, _),) = cross_fitted(features, [clear], pids, fold, seed=0)
    np.testing.assert_allclose(together, alone, atol=1e-9)
    assert of_noise.std() < 0.3 * noise.std()
    assert np.corrcoef(together[:, 0], clear[:, 0])[0, 1] > 0.999
    assert INNER_FOLDS < FOLDS


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Ratios of sums over 40 identities with unequally many images, 1000 replications."""
    random = np.random.default_rng(4)
    held = 0
    for _ in range(1000):
        images = random.integers(1, 9, size=40)
        share = np.clip(0.7 + 0.2 * random.normal(size=40), 0, 1)
        right = random.binomial(images, share).astype(float)[:, None]
        low, high = of_ratios(right, images.astype(float)[:, None]).interval()
        held += low <= 100 * TRUTH <= high
    assert 920 <= held <= 975


TRUTH = float(np.clip(0.7 + 0.2 * np.random.default_rng(0).normal(size=2_000_000), 0, 1).mean())


def test_scores_add_up_and_are_paired_by_identity():
    random = np.random.default_rng(6)
    of = np.full((30, 1), 10.0)
    right = random.binomial(10, 0.5, size=(30, 1)).astype(float)
    one, other = of_ratios(right, of), of_ratios(right - 1, of)
    assert one.value == pytest.approx(100 * right.sum() / 300)
    assert difference(one, other).interval() == pytest.approx((10, 10))  # always one image more
    mean = mean_of([one, other])
    assert mean.value == pytest.approx((one.value + other.value) / 2)
    assert mean.interval()[1] - mean.value == pytest.approx(one.interval()[1] - one.value)
    assert rescaled(one, 50).value == pytest.approx(2 * (one.value - 50))
    usual = 100 * (right / 10).std(ddof=1) / np.sqrt(30)
    assert np.sqrt((one.pulls**2).sum()) == pytest.approx(usual)
    wider = with_noise_of_fits(one, 5)
    assert np.ptp(wider.interval()) == pytest.approx(1.5 * np.ptp(one.interval()))


def test_the_mean_over_classes_counts_each_class_alike_and_only_its_own_identities():
    of = np.array([[9.0, 0.0], [9.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    right = np.array([[9.0, 0.0], [9.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    score = of_ratios(right, of)
    assert score.value == 50
    assert score.identities == 4
    nobody = of_ratios(np.append(right, [[0.0, 0.0]], axis=0), np.append(of, [[0.0, 0.0]], axis=0))
    assert nobody.identities == 4
    assert np.isnan(Score(1.0, np.array([0.0, np.nan])).interval()).all()
    assert by_identity(np.array([[1.0], [2.0], [4.0]]), np.array([1, 0, 1]), 3).tolist() == [[2.0], [5.0], [0.0]]
