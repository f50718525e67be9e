"""extract: each image through the network once, and the same features as one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bdlf.data.augment import normalize
from bdlf.errors import InputError
from bdlf.evaluation import extract

STORE = np.random.default_rng(0).integers(0, 256, size=(9, 4, 3, 3), dtype=np.uint8)
WEIGHT = torch.randn(3 * 4 * 3, 5, generator=torch.Generator().manual_seed(0))


class Counted:
    """A linear map of the pixels, not symmetric in them, that remembers the batches it saw."""

    def __init__(self):
        self.sizes = []

    def __call__(self, images):
        assert images.dtype == torch.float32 and torch.is_inference_mode_enabled()
        self.sizes.append(len(images))
        return images.flatten(1) @ WEIGHT


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
    features = extract(embed, STORE, rows, batch_size=2, device="cpu", flip=flip)
    assert embed.sizes == sizes
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, one_by_one(rows, flip), atol=1e-6)


def test_reads_a_memory_map_and_flips_by_default(tmp_path):
    np.save(tmp_path / "store.npy", STORE)
    store = np.load(tmp_path / "store.npy", mmap_mode="r")
    features = extract(Counted(), store, np.arange(9), batch_size=4, device=torch.device("cpu"))
    np.testing.assert_allclose(features, one_by_one(range(9), flip=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


def test_length_is_taken_in_full_precision():
    """Half-precision features whose squares overflow, or vanish, in half precision; float32 ones that do in float32."""
    for size, dtype in ((300.0, torch.float16), (1e-4, torch.float16), (1e30, torch.float32), (1e-30, torch.float32)):
        features = extract(
            lambda images, size=size, dtype=dtype: torch.full((len(images), 4), size, dtype=dtype),
            STORE,
            np.array([1, 5]),
            batch_size=2,
            device="cpu",
        )
        np.testing.assert_allclose(features, np.full((2, 4), 0.5), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_feature_without_direction_is_refused(value):
    bad = torch.from_numpy(STORE[6:7].copy())

    def embed(images):
        features = images.flatten(1) @ WEIGHT
        features[(images == normalize(bad)).flatten(1).all(dim=1)] = value
        return features

    assert extract(embed, STORE, np.array([1, 5]), batch_size=2, device="cpu", flip=False).shape == (2, 5)
    with pytest.raises(InputError, match="features of 1 of 3 images, row 6 first, are not finite or of length 0"):
        extract(embed, STORE, np.array([8, 6, 1]), batch_size=2, device="cpu", flip=False)


@pytest.mark.parametrize(
    ("rows", "message"), [([], "list of rows is empty"), ([0, 9], "rows 0..9 .* 9 images"), ([-1, 3], "rows -1..3")]
)
def test_rows_that_are_not_there_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        extract(Counted(), STORE, np.array(rows, dtype=np.int64), batch_size=2, device="cpu")
