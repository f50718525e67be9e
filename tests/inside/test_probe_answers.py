"""Features that were made such that the score of every probe is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from bdlf.data.synthetic.factors import FACTOR_KINDS, SHARED_CLASSES, SHARED_RANGES, synthetic_listing
from bdlf.inside import InsideFeatures, probe
from bdlf.inside.claims import verdicts
from bdlf.inside.targets import targets_of, true_factors
from bdlf.system.errors import InputError

NEAR = 2.0
"""In points: how near a score must be to its analytic value."""
STRAIGHT = [name for name in SHARED_RANGES if name != "pattern_phase"]
"""The shared numbers that are no angle."""


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    listing = synthetic_listing(train_identities=0, test_identities=300, images_per_identity=2)
    return listing.reset_index(drop=True)


def inside(table: pd.DataFrame, **features: np.ndarray) -> InsideFeatures:
    return InsideFeatures({name: one.astype(np.float32) for name, one in features.items()}, table.index.values, table)


def numbers(table: pd.DataFrame, names: list[str]) -> np.ndarray:
    values = table[names].to_numpy()
    return (values - values.mean(axis=0)) / values.std(axis=0)


def rotated(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same in other axes, so that no channel is a factor."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(values.shape[1], values.shape[1])))
    return values @ axes


def shared(table: pd.DataFrame) -> np.ndarray:
    classes = [table[name].to_numpy()[:, None] == np.unique(table[name]) for name in SHARED_CLASSES]
    angle = 2 * np.pi * table["pattern_phase"].to_numpy()[:, None]
    return rotated(np.concatenate([numbers(table, STRAIGHT), np.cos(angle), np.sin(angle), *classes], axis=1))


def visible(table: pd.DataFrame) -> np.ndarray:
    return rotated(numbers(table, [name for name, kind in FACTOR_KINDS.items() if kind == "visible"]))


def of(probes: pd.DataFrame, feature: str, group: str, target: str = "all") -> dict:
    chosen = (probes["feature"] == feature) & (probes["group"] == group) & (probes["target"] == target)
    (row,) = probes[chosen].to_dict("records")
    return row


def at_chance(row: dict) -> bool:
    return row["low"] <= row["chance"] <= row["high"]


@pytest.fixture(scope="module")
def probes(table):
    random = np.random.default_rng(5)
    noise = random.normal(size=(len(table), 32))
    _, place = np.unique(table["pid"], return_inverse=True)
    return probe(
        inside(
            table,
            Z_B=shared(table),
            Z_D=np.concatenate([visible(table), 3 * (table["modality"] == "ir").to_numpy()[:, None]], axis=1),
            both=np.concatenate([shared(table), visible(table)], axis=1),
            noise=noise,
            person=random.normal(size=(place.max() + 1, 32))[place],
        )
    )


def test_pure_shared_factors_give_these_and_nothing_else(probes):
    rows = probes[(probes["feature"] == "Z_B") & (probes["group"] == "shared")]
    assert len(rows) == len(SHARED_RANGES) + len(SHARED_CLASSES) + 1
    assert (rows["score"] > 100 - NEAR).all()
    for group in ("visible", "infrared"):
        assert at_chance(of(probes, "Z_B", group)), group
    assert at_chance(of(probes, "Z_B", "modality", "modality"))


def test_pure_visible_factors_give_these_and_nothing_else(probes):
    rows = probes[(probes["feature"] == "Z_D") & (probes["group"] == "visible")]
    assert len(rows) == 25
    assert (rows["score"] > 100 - NEAR).all()
    for group in ("shared", "infrared"):
        assert at_chance(of(probes, "Z_D", group)), group
    assert of(probes, "Z_D", "modality", "modality")["score"] == 100


def test_half_shared_and_half_visible_channels_give_both(probes):
    for group in ("shared", "visible"):
        assert of(probes, "both", group)["score"] > 100 - NEAR
    assert of(probes, "both", "specific")["score"] == pytest.approx(
        (of(probes, "both", "visible")["score"] + of(probes, "both", "infrared")["score"]) / 2
    )


@pytest.mark.parametrize("feature", ["noise", "person"])
def test_noise_stays_at_chance(probes, feature):
    """`person` is another random vector for each identity: it tells people apart and says nothing about them."""
    single = probes[(probes["feature"] == feature) & (probes["target"] != "all")].to_dict("records")
    assert np.mean([at_chance(row) for row in single]) > 0.95
    for group in ("shared", "visible", "infrared", "specific"):
        assert of(probes, feature, group)["score"] == pytest.approx(0, abs=0.7), group  # a penalty by luck costs this
    assert at_chance(of(probes, feature, "camera"))
    assert at_chance(of(probes, feature, "modality", "modality"))


def test_the_claims_are_judged_by_the_differences(probes):
    found = {one.group: one for one in verdicts(probes)}
    assert {group: one.verdict for group, one in found.items()} == {
        "shared": "yes",
        "specific": "yes",
        "modality": "yes",
    }
    assert found["shared"].difference > 90
    difference = of(probes, "Z_B - Z_D", "shared")
    assert difference["score"] == pytest.approx(
        of(probes, "Z_B", "shared")["score"] - of(probes, "Z_D", "shared")["score"]
    )


def test_equal_parts_of_signal_and_noise_give_half_of_the_variance():
    """With x = y + noise of equal variance, the best linear prediction is x / 2, whose R^2 is 1/2 on many images."""
    listing = synthetic_listing(train_identities=0, test_identities=1000, images_per_identity=1)
    table = listing[["pid", "camid", "modality", *STRAIGHT]]
    values = numbers(table, STRAIGHT)
    noisy = values + np.random.default_rng(1).normal(size=values.shape)
    found = probe(inside(table, mixed=rotated(noisy)))
    oracle = 100 * (1 - ((values - noisy / 2) ** 2).sum(axis=0) / (values**2).sum(axis=0))
    scores = [of(found, "mixed", "shared", name)["score"] for name in STRAIGHT]
    assert np.abs(scores - oracle).max() < NEAR
    assert np.mean(scores) == pytest.approx(50, abs=NEAR)


def cameras(seed: int, share: float, distance: float) -> tuple[pd.DataFrame, np.ndarray]:
    """Visible images of two cameras, the second with a `share` of them, whose features lie `distance` std apart."""
    random = np.random.default_rng(seed)
    pids = np.repeat(np.arange(200), 15)
    camids = 1 + (random.random(len(pids)) < share)
    table = pd.DataFrame({"pid": pids, "camid": camids, "modality": np.where(np.arange(len(pids)) % 15, "vis", "ir")})
    features = random.normal(size=(len(pids), 10))
    features[:, 0] += distance * (camids == 2)
    return table, rotated(features)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_two_classes_are_told_apart_as_well_as_they_can_be(share):
    """However rare one is: the balanced accuracy of two unit normal classes at distance d is Phi(d / 2)."""
    table, features = cameras(3, share, 2.0)
    found = probe(inside(table, x=features))
    row = of(found, "x", "camera", "camera_vis")
    assert row["score"] == pytest.approx(100 * norm.cdf(1.0), abs=NEAR)
    assert row["low"] < 100 * norm.cdf(1.0) < row["high"]
    assert row["chance"] == 50
    assert of(found, "x", "camera")["score"] == pytest.approx(
        2 * (np.mean([row["score"], of(found, "x", "camera", "camera_ir")["score"]]) - 50)
    )


def test_classes_are_told_apart_as_by_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    table, features = cameras(4, 0.2, 1.5)
    row = of(probe(inside(table, x=features)), "x", "camera", "camera_vis")
    chosen = (table["modality"] == "vis").to_numpy()
    given, classes, pids = features[chosen], table["camid"][chosen], table["pid"][chosen]
    usual = LogisticRegression(class_weight="balanced")
    guessed = cross_val_predict(usual, given, classes, groups=pids, cv=GroupKFold(5))
    assert row["score"] == pytest.approx(100 * balanced_accuracy_score(classes, guessed), abs=NEAR)


def test_many_useless_channels_do_not_drown_a_strong_one(table):
    """Without a penalty, 400 channels of noise would explain 480 people perfectly, and the rest not at all."""
    random = np.random.default_rng(8)
    _, place = np.unique(table["pid"], return_inverse=True)
    noise = random.normal(size=(place.max() + 1, 400))[place]
    strong = 20 * numbers(table, ["stature"])
    found = probe(inside(table, x=np.concatenate([strong, noise], axis=1)))
    assert of(found, "x", "shared", "stature")["score"] > 80


def test_what_an_image_cannot_show_is_not_asked_of_it(table):
    asked = {target.name: target for target in targets_of(table)}
    assert {"noise_seed"} == set(FACTOR_KINDS) - set(asked)
    modality = table["modality"].to_numpy()
    for name, one in asked.items():
        only = {"vis": "vis", "ir": "ir", None: None}[one.modality]
        assert only is None or (modality[one.lines] == only).all(), name
    assert asked["colour_hair_red"].modality == asked["tint_red"].modality == "vis"
    assert asked["emissivity_hair"].modality == "ir"
    assert asked["light"].modality is None
    light, lines = asked["light"].values[:, 0], asked["light"].lines
    for one in ("vis", "ir"):  # the modality is no knowledge of the light
        assert light[modality[lines] == one].mean() == pytest.approx(0, abs=1e-12)


def test_classes_of_a_single_person_are_left_out():
    table = pd.DataFrame(
        {"pid": [1, 1, 2, 2, 3, 3, 4], "camid": [1, 2, 1, 2, 1, 2, 9], "modality": ["vis"] * 5 + ["ir"] * 2}
    )
    (camera,) = [one for one in targets_of(table) if one.name == "camera_vis"]
    assert camera.values.sum(axis=0).tolist() == [3, 2]
    assert [one.name for one in targets_of(table)] == ["modality", "camera_vis"]


def test_true_factors_tell_everything_but_the_modality(table):
    found = probe(inside(table, factors=true_factors(table)))
    for group in ("shared", "visible", "infrared", "nuisance"):
        assert of(found, "factors", group)["score"] > 100 - 2 * NEAR, group


def test_one_person_cannot_be_probed(table):
    few = table[table["pid"] == table["pid"].iloc[0]].reset_index(drop=True)
    with pytest.raises(InputError, match="at least 2 identities"):
        probe(inside(few, x=np.zeros((len(few), 2))))
