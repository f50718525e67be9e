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


MAPS = np.random.default_rng(1).integers(0, 256, (12, 8, 6, 1), dtype=np.uint8).repeat(3, axis=3)
FOUR = (*TWO, View("vis_shape", "vis", silhouette=True), View("ir_shape", "ir", recolour="always", silhouette=True))


class Counted(Images):
    """A store that counts the images that are fetched from it."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.fetched = 0

    def take(self, rows):
        self.fetched += len(rows)
        return super().take(rows)


def with_maps(views=FOUR, augmentation=PLAIN) -> tuple[Batches, Counted, Counted]:
    sampler = IdentitySampler(PIDS, MODALITIES, identities=2, images=2, seed=1, steps=3)
    store, maps = Counted(STORE, "cpu"), Counted(MAPS, "cpu")
    return Batches(sampler, store, ROWS, augmentation, views, seed=3, silhouettes=maps), store, maps


@pytest.mark.parametrize("views", [FOUR, (*FOUR[::-1], *THREE[2:])], ids=len)
def test_a_view_of_silhouettes_shows_those_of_the_sampled_images(views):
    made, store, maps = with_maps(views)
    for step, batch in enumerate(made.of(1, range(3))):
        blocks = []
        for view in views:
            images = sampled(step, view.modality)
            blocks.append(MAPS[images] if view.silhouette else STORE[ROWS[images]])
        assert torch.equal(batch.images, normalize(torch.from_numpy(np.concatenate(blocks))))
        assert torch.equal(batch.images, made.again(1, step).images)
        require_equal_blocks(batch.labels, len(views))
    assert store.fetched == maps.fetched == 2 * 3 * 8, "of() and again() fetch each image and each silhouette once"


def test_silhouettes_are_cropped_and_mirrored_apart_and_neither_erased_nor_recoloured():
    made, *_ = with_maps(augmentation=Augmentation(crop=False, flip=0.5, erase=1.0))
    mirrored, differ = 0, 0
    for step, batch in enumerate(made.of(1, range(3))):
        for block, modality in ((2, "vis"), (3, "ir")):
            plain = normalize(torch.from_numpy(MAPS[sampled(step, modality)]))
            for shown, own in zip(batch.images.unflatten(0, (4, 4))[block], plain, strict=True):
                assert torch.equal(shown, own) or torch.equal(shown, own.flip(2))
                mirrored += torch.equal(shown, own.flip(2))
    assert 4 < mirrored < 20, "of 24"

    # A view has draws of its own: the map of an image is not always mirrored where the image is.
    made, *_ = with_maps(augmentation=Augmentation(crop=False, flip=0.5, erase=0.0, exchange=0.0))
    for step, batch in enumerate(made.of(1, range(3))):
        blocks = batch.images.unflatten(0, (4, 4))
        for image in range(4):
            own = normalize(torch.from_numpy(STORE[ROWS[sampled(step, "vis")[image]]][None]))[0]
            shape = normalize(torch.from_numpy(MAPS[sampled(step, "vis")[image]][None]))[0]
            differ += torch.equal(blocks[0, image], own) != torch.equal(blocks[2, image], shape)
    assert 0 < differ < 12
    moved, *_ = with_maps(augmentation=Augmentation(pad=3, flip=0.0, erase=0.0))
    assert not torch.equal(moved.again(0, 0).images[8:], made.again(0, 0).images[8:])


def test_silhouettes_are_given_exactly_if_a_view_shows_them():
    with pytest.raises(ValueError, match="exactly if a view shows them"):
        batches(FOUR)
    with pytest.raises(ValueError, match="exactly if a view shows them"):
        with_maps(THREE)
