"""Batches: blocks in the order of the views, labels that agree, draws that depend on seed, epoch and step alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bdlf.data.augment import Augmentation, normalize
from bdlf.data.batches import Batches, generator, require_equal_blocks
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.networks.network import View
from bdlf.system.errors import InputError

PIDS = np.repeat([7, 3, 11], 4)
MODALITIES = np.tile(["vis", "vis", "ir", "ir"], 3)
ROWS = np.arange(5, 17)[::-1].copy()  # images are neither at the start of the store nor in its order
STORE = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3), dtype=np.uint8)
TWO = (View("vis", "vis", recolour="exchange"), View("ir", "ir"))
THREE = (View("ir", "ir"), View("vis", "vis"), View("again", "vis", recolour="exchange"))
PLAIN = Augmentation(crop=False, flip=0.0, erase=0.0, exchange=0.0)


def batches(views=TWO, augmentation=PLAIN, seed: int = 3) -> Batches:
    sampler = IdentitySampler(PIDS, MODALITIES, identities=2, images=2, seed=1, steps=3)
    return Batches(sampler, Images(STORE, "cpu"), ROWS, augmentation, views, seed=seed)


def sampled(step: int, modality: str) -> np.ndarray:
    """The sampler's images of one modality in a step of epoch 1."""
    return batches().sampler.epoch(1)[step, ["vis", "ir"].index(modality)]


@pytest.mark.parametrize("views", [TWO, THREE], ids=len)
def test_each_view_shows_the_sampled_images_of_its_modality(views):
    for step, batch in enumerate(batches(views).of(1, range(3))):
        rows = np.concatenate([ROWS[sampled(step, view.modality)] for view in views])
        assert torch.equal(batch.images, normalize(torch.from_numpy(STORE[rows])))
        labels = [np.unique(PIDS, return_inverse=True)[1][sampled(step, view.modality)] for view in views]
        assert batch.labels.tolist() == np.concatenate(labels).tolist()


def test_views_are_augmented_apart_and_only_some_exchange_channels():
    always = Augmentation(crop=False, flip=0.0, erase=0.0, exchange=1.0)
    images = next(batches(THREE, always).of(0, [0])).images.unflatten(0, (3, 4))
    spread = images.std(dim=2).amax(dim=(2, 3))  # over the channels: an exchange makes them equal
    assert (spread[:2] > 0.01).all() and (spread[2] < 1e-6).all()
    drawn = next(batches(THREE, Augmentation()).of(0, [0])).images.unflatten(0, (3, 4))
    assert not torch.equal(drawn[1], drawn[2])


def test_a_batch_depends_on_seed_epoch_and_step_alone():
    on = Augmentation()
    second = [batch.images.clone() for batch in batches(augmentation=on).of(1, range(3))][1]
    one = batches(augmentation=on)
    list(one.of(4, [0]))
    assert torch.equal(next(one.of(1, [1])).images, second)
    assert torch.equal(one.again(1, 1).images, second)
    for other in (batches(augmentation=on, seed=4).again(1, 1), one.again(1, 0), one.again(0, 1)):
        assert not torch.equal(other.images, second)
    seeds = {generator(*numbers).initial_seed() for numbers in ((3, 1, 1), (4, 1, 1), (3, 0, 1), (3, 1, 0))}
    assert len(seeds) == 4


def test_the_identities_of_a_batch_are_its_pids():
    assert batches().identities(1, 2) == sorted(set(PIDS[sampled(2, "ir")].tolist()))


LABELS = torch.tensor([0, 0, 1, 1, 3, 3]).repeat(2)


@pytest.mark.parametrize(
    "labels", [torch.cat([LABELS[:6], LABELS[:6].roll(1)]), LABELS[:-1], LABELS[:1], LABELS[:0]], ids=len
)
def test_blocks_with_different_labels_are_refused(labels):
    with pytest.raises(InputError, match=f"labels of {len(labels)} rows: each of the 2 blocks must have the same"):
        require_equal_blocks(labels, 2)
    require_equal_blocks(LABELS, 2)
    require_equal_blocks(LABELS[:6].repeat(3), 3)
