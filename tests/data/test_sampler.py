from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from bdlf.data.sampler import IdentitySampler
from bdlf.system.errors import InputError


def uneven(seed=0):
    """12 identities with numbers out of order and 1 to 9 images of each modality, rows shuffled."""
    random = np.random.default_rng(seed)
    rows = [
        (pid, kind)
        for pid in random.choice(500, 12, replace=False)
        for kind in ("vis", "ir")
        for _ in range(random.integers(1, 10))
    ]
    random.shuffle(rows)
    pids, kinds = zip(*rows, strict=True)
    return np.array(pids, dtype=np.int64), np.array(kinds, dtype=object)


def test_each_batch_pairs_distinct_identities_across_the_modalities():
    pids, kinds = uneven()
    epoch = IdentitySampler(pids, kinds, identities=5, images=3, steps=40).epoch(0)
    assert epoch.shape == (40, 2, 15)
    assert (kinds[epoch[:, 0]] == "vis").all()
    assert (kinds[epoch[:, 1]] == "ir").all()
    assert (pids[epoch[:, 0]] == pids[epoch[:, 1]]).all()
    for batch in pids[epoch[:, 0]].reshape(40, 5, 3):
        assert (batch == batch[:, :1]).all()
        assert len(set(batch[:, 0])) == 5


def test_identities_and_their_images_are_drawn_evenly_and_images_with_replacement():
    pids, kinds = uneven(1)
    epoch = IdentitySampler(pids, kinds, identities=4, images=3, steps=6000).epoch(0)
    identities = pids[epoch[:, 0, ::3]]
    assert chisquare(np.unique(identities, return_counts=True)[1]).pvalue > 1e-4
    assert set(np.unique(epoch)) == set(range(len(pids)))
    for half, kind in ((0, "vis"), (1, "ir")):
        for pid in np.unique(pids):
            own = np.flatnonzero((pids == pid) & (kinds == kind))
            drawn = epoch[:, half].reshape(-1, 3)
            drawn = drawn[pids[drawn[:, 0]] == pid]
            counts = (drawn.reshape(-1, 1) == own).sum(0)
            assert len(own) == 1 or chisquare(counts).pvalue > 1e-4
            some_twice = np.mean([len(set(row)) < 3 for row in drawn])
            expected = 1 - (1 - 1 / len(own)) * (1 - 2 / len(own))
            assert some_twice == pytest.approx(expected, abs=0.05)


def test_pairs_of_identities_share_a_batch_evenly():
    pids, kinds = np.repeat(np.arange(6), 2), np.tile(["vis", "ir"], 6)
    epoch = IdentitySampler(pids, kinds, identities=3, images=1, steps=6000).epoch(0)
    together = np.zeros((6, 6))
    for batch in pids[epoch[:, 0]]:
        together[np.ix_(batch, batch)] += 1
    assert chisquare(together[np.triu_indices(6, 1)]).pvalue > 1e-4
    assert chisquare(np.bincount(pids[epoch[:, 0, 0]])).pvalue > 1e-4


def test_an_epoch_depends_on_seed_and_number_alone():
    pids, kinds = uneven()
    first, second = (IdentitySampler(pids, kinds, identities=5, images=2, seed=3) for _ in range(2))
    expected = [first.epoch(e) for e in range(4)]
    assert np.array_equal(second.epoch(3), expected[3])
    assert np.array_equal(second.epoch(0), expected[0])
    assert not np.array_equal(expected[0], expected[1])
    other = IdentitySampler(pids, kinds, identities=5, images=2, seed=4)
    assert not np.array_equal(other.epoch(0), expected[0])
    assert not np.array_equal(other.epoch(3), first.epoch(4)), "seed and epoch are not added up"


@pytest.mark.parametrize(
    ("visible", "infrared", "steps"), [(70, 30, 2), (30, 70, 2), (64, 16, 2), (63, 63, 1), (9, 9, 1)]
)
def test_an_epoch_has_as_many_batches_as_the_larger_modality_fills(visible, infrared, steps):
    pids = np.concatenate([np.arange(visible) % 8, np.arange(infrared) % 8])
    sampler = IdentitySampler(pids, np.repeat(["vis", "ir"], [visible, infrared]))
    assert sampler.steps_per_epoch == steps
    assert sampler.epoch(0).shape == (steps, 2, 32)


def test_labels_number_the_identities_in_ascending_order():
    pids, kinds = uneven()
    sampler = IdentitySampler(pids, kinds)
    assert (sampler.pids[sampler.labels] == pids).all()
    assert list(sampler.pids) == sorted(set(pids.tolist()))
    assert sampler.labels.dtype == np.int64


def test_what_cannot_fill_a_batch_is_refused():
    pids, kinds = uneven()
    with pytest.raises(InputError, match="needs 13 identities, but only 12 have training images"):
        IdentitySampler(pids, kinds, identities=13)
    with pytest.raises(InputError, match="identities=0 in the sampler"):
        IdentitySampler(pids, kinds, identities=0)
    with pytest.raises(InputError, match="steps=0 in the sampler"):
        IdentitySampler(pids, kinds, steps=0)
    for kind, word in (("vis", "visible"), ("ir", "infrared")):
        keep = (pids != pids[0]) | (kinds != kind)
        with pytest.raises(InputError, match=rf"1 identities have no {word} training image \({pids[0]}\)"):
            IdentitySampler(pids[keep], kinds[keep])
    with pytest.raises(InputError, match="unknown modality 'nir'"):
        IdentitySampler(pids, np.where(kinds == "ir", "nir", kinds))
