"""`extract` embeds each image once, and gives the features that one image at a time would have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bdlf.data.augment import normalize
from bdlf.data.images import Images
from bdlf.evaluation import extract
from bdlf.system.errors import InputError

STORE = np.random.default_rng(0).integers(0, 256, size=(9, 4, 3, 3), dtype=np.uint8)
IMAGES = Images(STORE, "cpu")
WEIGHT = torch.randn(3 * 4 * 3, 5, generator=torch.Generator().manual_seed(0))


class Counted:
    """A linear map of the pixels, not symmetric in them, that remembers the batches it saw."""

    def __init__(self):
        self.sizes, self.modalities = [], []

    def __call__(self, images, modality):
        self.modalities.append(modality)
        assert images.dtype == torch.float32 and torch.is_inference_mode_enabled()
        self.sizes.append(len(images))
        return images.flatten(1) @ WEIGHT


def alike(rows):
    """Rows, and a modality that they share."""
    return rows, np.full(len(rows), "vis")


def one_by_one(rows, flip):
    features = []
    for row in rows:
        image = normalize(torch.from_numpy(STORE[row : row + 1].copy()))
        feature = (image.flatten(1) @ WEIGHT).double()[0].numpy()
        if flip:
            mirrored = normalize(torch.from_numpy(STORE[row : row + 1, :, ::-1].copy()))
            feature = (feature + (mirrored.flatten(1) @ WEIGHT).double()[0].numpy()) / 2
        features.append(feature / np.sqrt((feature**2).sum()))
    return np.array(features)


@pytest.mark.parametrize(("flip", "sizes"), [(True, [2, 2, 2, 2, 1, 1]), (False, [2, 2, 1])])
def test_every_distinct_row_is_embedded_once(flip, sizes):
    rows = np.array([7, 2, 7, 0, 8, 2, 3])  # five distinct ones, out of order
    embed = Counted()
    features = extract(embed, IMAGES, *alike(rows), batch_size=2, flip=flip)
    assert embed.sizes == sizes
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, one_by_one(rows, flip), atol=1e-6)


@pytest.mark.parametrize("flip", [True, False])
def test_each_modality_is_embedded_in_batches_of_its_own(flip):
    rows = np.array([7, 2, 7, 0, 8, 3])
    modalities = np.array(["ir", "vis", "ir", "vis", "ir", "vis"])
    seen = []

    def embed(images, modality):
        seen.append((modality, len(images)))
        return images.flatten(1) @ WEIGHT * (-1 if modality == "ir" else 1)  # another network for the infrared

    features = extract(embed, IMAGES, rows, modalities, batch_size=2, flip=flip)
    sign = np.where(modalities == "ir", -1, 1)[:, None]
    np.testing.assert_allclose(features, sign * one_by_one(rows, flip), atol=1e-6)
    assert seen == [one for one in [("ir", 2), ("vis", 2), ("vis", 1)] for _ in range(2 if flip else 1)]


def test_reads_a_memory_map_and_flips_by_default(tmp_path):
    np.save(tmp_path / "store.npy", STORE)
    store = np.load(tmp_path / "store.npy", mmap_mode="r")
    features = extract(Counted(), Images(store, "cpu"), *alike(np.arange(9)), batch_size=4)
    np.testing.assert_allclose(features, one_by_one(range(9), flip=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("cache", ["device", "host", "disk"])
@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_wherever_the_images_lie_the_features_are_those_of_one_batch_after_the_other(cache, batch_size):
    rows, found = np.array([7, 2, 7, 0, 8, 2, 3, 5]), []
    distinct = np.unique(rows)
    with torch.inference_mode():
        for begin in range(0, len(distinct), batch_size):
            batch = normalize(torch.from_numpy(STORE[distinct[begin : begin + batch_size]]))
            found.append(batch.flatten(1) @ WEIGHT + batch.flip(3).flatten(1) @ WEIGHT)
    expected = torch.cat(found).double()
    expected = (expected / expected.norm(dim=1, keepdim=True)).float().numpy()[np.searchsorted(distinct, rows)]
    features = extract(Counted(), Images(STORE, "cpu", cache), *alike(rows), batch_size=batch_size)
    assert np.array_equal(features, expected)


def test_length_is_taken_in_full_precision():
    """Half-precision features whose squares overflow, or vanish, in half precision; float32 ones that do in float32."""
    for size, dtype in ((300.0, torch.float16), (1e-4, torch.float16), (1e30, torch.float32), (1e-30, torch.float32)):
        features = extract(
            lambda images, modality, size=size, dtype=dtype: torch.full((len(images), 4), size, dtype=dtype),
            IMAGES,
            *alike(np.array([1, 5])),
            batch_size=2,
        )
        np.testing.assert_allclose(features, np.full((2, 4), 0.5), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_feature_without_direction_is_refused(value):
    bad = torch.from_numpy(STORE[6:7].copy())

    def embed(images, modality):
        features = images.flatten(1) @ WEIGHT
        features[(images == normalize(bad)).flatten(1).all(dim=1)] = value
        return features

    assert extract(embed, IMAGES, *alike(np.array([1, 5])), batch_size=2, flip=False).shape == (2, 5)
    with pytest.raises(InputError, match="features of 1 of 3 images, row 6 first, are not finite or of length 0"):
        extract(embed, IMAGES, *alike(np.array([8, 6, 1])), batch_size=2, flip=False)


@pytest.mark.parametrize(
    ("rows", "message"), [([], "list of rows is empty"), ([0, 9], "rows 0..9 .* 9 images"), ([-1, 3], "rows -1..3")]
)
def test_rows_that_are_not_there_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        extract(Counted(), IMAGES, *alike(np.array(rows, dtype=np.int64)), batch_size=2)
