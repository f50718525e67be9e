"""The synthetic listing: determinism, independence of the set's size, and what varies with what."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bdlf.data.synthetic.factors import (
    FACTOR_KINDS,
    POOLS,
    SHARED_CLASSES,
    SHARED_RANGES,
    factor_columns,
    synthetic_listing,
)
from bdlf.system.errors import InputError

OF_IDENTITY = [name for name, kind in FACTOR_KINDS.items() if kind != "nuisance"]
NUISANCE = [name for name, kind in FACTOR_KINDS.items() if kind == "nuisance"]
CAMERA_ONLY = {"background_frequency", "background_contrast"}


@pytest.fixture(scope="module")
def listing() -> pd.DataFrame:
    return synthetic_listing(train_identities=40, test_identities=20, images_per_identity=4)


def test_columns_and_order(listing: pd.DataFrame) -> None:
    assert list(listing.columns) == ["path", "pid", "camid", "modality", "split", *FACTOR_KINDS]
    assert listing.index.equals(pd.RangeIndex(60 * 8))
    assert listing["pid"].dtype == np.int64
    assert listing["camid"].dtype == np.int64
    assert listing["path"].is_unique
    assert np.isfinite(listing[list(FACTOR_KINDS)].to_numpy()).all()


def test_paths_say_what_the_columns_say(listing: pd.DataFrame) -> None:
    parts = listing["path"].str.extract(r"^(train|test)/(\d{4})/(vis|ir)_c(\d)_\d{3}\.png$")
    assert (parts[0] == listing["split"]).all()
    assert (parts[1].astype(int) == listing["pid"]).all()
    assert (parts[2] == listing["modality"]).all()
    assert (parts[3].astype(int) == listing["camid"]).all()


def test_sizes_and_cameras() -> None:
    listing = synthetic_listing(
        train_identities=3, test_identities=2, images_per_identity=5, visible_cameras=(4, 7), infrared_cameras=(1,)
    )
    counts = listing.groupby(["split", "pid", "modality", "camid"]).size().to_dict()
    expected = {}
    for split, pids in (("train", (1, 2, 3)), ("test", (5001, 5002))):
        for pid in pids:
            expected |= {(split, pid, "vis", 4): 3, (split, pid, "vis", 7): 2, (split, pid, "ir", 1): 5}
    assert counts == expected


def test_same_seed_same_listing_other_seed_another(listing: pd.DataFrame) -> None:
    again = synthetic_listing(train_identities=40, test_identities=20, images_per_identity=4)
    pd.testing.assert_frame_equal(listing, again)
    other = synthetic_listing(seed=1, train_identities=40, test_identities=20, images_per_identity=4)
    same = (other[list(FACTOR_KINDS)] == listing[list(FACTOR_KINDS)]).mean()
    assert set(same[same == 1].index) == set()


def test_a_larger_set_contains_the_smaller_one(listing: pd.DataFrame) -> None:
    small = synthetic_listing(train_identities=5, test_identities=3, images_per_identity=3)
    merged = small.merge(listing, on="path", suffixes=("", "_large"))
    assert len(merged) == len(small)
    for name in ["pid", "camid", *FACTOR_KINDS]:
        assert (merged[name] == merged[f"{name}_large"]).all(), name


def test_identity_factors_are_constant_within_an_identity_and_nuisances_are_not(listing: pd.DataFrame) -> None:
    groups = listing.groupby("pid")
    for name in OF_IDENTITY:
        assert (groups[name].nunique() == 1).all(), name
        assert listing[name].nunique() > 1, name
    in_camera = listing.groupby(["pid", "camid"])
    for name in set(NUISANCE) - CAMERA_ONLY - {"occluder"}:
        # All but a few that met the edge of their range in both images.
        assert (in_camera[name].nunique() > 1).mean() > 0.8, name
    for name in CAMERA_ONLY:
        assert listing.groupby("camid")[name].nunique().eq(1).all(), name
        assert listing[name].nunique() == 4, name


def test_identities_are_disjoint_between_splits_and_pools(listing: pd.DataFrame) -> None:
    pids = listing.groupby("split")["pid"].unique()
    assert not set(pids["train"]) & set(pids["test"])
    one = {
        "identity": np.arange(6),
        "modality": np.array(["vis"] * 6),
        "camid": np.ones(6, int),
        "image": np.zeros(6, int),
    }
    supplies = [factor_columns(seed=0, pool=pool, **one)["stature"] for pool in POOLS]
    assert pd.concat(supplies).is_unique


def test_values_stay_in_their_ranges(listing: pd.DataFrame) -> None:
    for name, (low, high) in SHARED_RANGES.items():
        assert listing[name].between(low, high).all(), name
        assert np.ptp(listing[name]) > 0.5 * (high - low), name
    for name, classes in SHARED_CLASSES.items():
        assert {classes[int(code)] for code in listing[name]} == set(classes), name
    for name in OF_IDENTITY:
        if name.startswith(("colour", "emissivity")) and name != "emissivity_pattern":
            assert listing[name].between(0, 1).all(), name
    assert listing["view"].between(0, 360).all()
    assert 0.05 < (listing["occluder"] > 0).mean() < 0.3


def test_the_pattern_and_the_hem_show_in_both_modalities(listing: pd.DataFrame) -> None:
    assert (listing["emissivity_pattern"] > 0.15).all()
    assert ((listing["emissivity_lower"] - listing["emissivity_upper"]).abs() > 0.1).all()
    colours = {
        region: listing[[f"colour_{region}_{channel}" for channel in ("red", "green", "blue")]].to_numpy()
        for region in ("upper", "pattern", "lower", "bag")
    }
    assert (colours["pattern"].sum(axis=1) > colours["upper"].sum(axis=1)).all()
    for region in ("pattern", "lower", "bag"):
        assert np.abs(colours[region] - colours["upper"]).sum(axis=1).min() > 0.1, region


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"train_identities": 5000}, "train_identities=5000"),
        ({"test_identities": -1}, "test_identities=-1"),
        ({"images_per_identity": 0}, "images_per_identity=0"),
        ({"visible_cameras": ()}, "cameras"),
        ({"visible_cameras": (1, 3)}, "cameras"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_impossible_sizes_are_refused(options: dict, word: str) -> None:
    with pytest.raises(InputError, match=word) as error:
        synthetic_listing(**{"train_identities": 2, "test_identities": 2} | options)
    assert "\n" not in str(error.value)
