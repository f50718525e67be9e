"""The features inside a run: they are those of the network, and Z is what the run is scored with."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import bdlf
from bdlf.data.augment import normalize
from bdlf.evaluation import score
from bdlf.evaluation.protocols import Setting
from bdlf.inside import feature_names, inside_features, probe, with_controls
from bdlf.inside.features import paired_batches, scored_features
from bdlf.inside.retrieval import placed, random_ranking
from bdlf.system.errors import InputError


@pytest.fixture
def run(finished_run):
    return bdlf.open_run(finished_run())


def test_retrieval_by_z_gives_the_figures_of_the_run(run):
    inside = inside_features(run)
    rows = probe(inside, run.settings["test"])
    rows = rows[(rows["feature"] == "Z") & (rows["group"] == "retrieval")].set_index("target")["score"]
    recorded = [row for row in run.result["metrics"] if row["model"] == next(iter(run.trained.models))]
    assert len(recorded) == 2
    for row in recorded:
        (setting,) = [one for one in run.settings["test"] if one.direction == row["direction"]]
        assert rows[f"mAP {setting.name}"] == row["mean"]["mAP"]  # exactly
        assert rows[f"rank1 {setting.name}"] == row["mean"]["rank1"]
    assert rows["mAP"] == pytest.approx(np.mean([row["mean"]["mAP"] for row in recorded]))


def test_z_is_the_same_if_the_protocol_needs_only_some_images(run):
    rows = np.flatnonzero(run.table["split"] == "test")
    store = run.store(torch.device("cpu"))
    everything = scored_features(run, run.network, store, rows)
    setting = run.settings["test"][0]
    queries, gallery = setting.trials[0]
    few = Setting(**{**vars(setting), "trials": ((queries[::2], gallery[1:]),)})
    run.settings = {"test": [few]}
    np.testing.assert_allclose(scored_features(run, run.network, store, rows), everything, atol=1e-6)


def test_features_are_those_that_training_would_compute(run):
    """In evaluation mode, of the batches of `paired_batches`; an image that occurs twice counts the first time."""
    inside = inside_features(run)
    assert list(inside.features) == ["Z", "Z_B", "Z_D", "Zbar_D", "Z_M"] == list(feature_names(run))
    table, store = inside.table, run.store(torch.device("cpu"))
    assert (run.table["path"].iloc[inside.rows].to_numpy() == table["path"].to_numpy()).all()
    batches = paired_batches(
        table["pid"].to_numpy(), table["modality"].to_numpy(), identities=2, images=2, seed=run.config.seed
    )
    seen: set[int] = set()
    with torch.inference_mode():
        for halves in batches:
            lines = halves.ravel()
            images = normalize(store.take(inside.rows[lines]))
            found = run.network(images, torch.from_numpy(table["pid"].to_numpy()[lines]))
            maps = run.network.backbone.fore(images, run.network.stage).mean((2, 3))
            fields = {"Z_B": found.base, "Z_D": found.detail, "Zbar_D": found.detail_projected, "Z_M": maps}
            for place, line in enumerate(lines.tolist()):
                if line not in seen:
                    seen.add(line)
                    for name, values in fields.items():
                        np.testing.assert_allclose(inside.features[name][line], values[place], atol=1e-4)
    assert seen == set(range(len(table)))


def test_a_row_of_the_detail_features_depends_on_its_batch(run):
    one = inside_features(run, names=["Z_D", "Z_B"])
    run.config.seed += 1
    other = inside_features(run, names=["Z_D", "Z_B"])
    assert not np.array_equal(one.features["Z_D"], other.features["Z_D"])
    np.testing.assert_array_equal(one.features["Z_B"], other.features["Z_B"])
    assert list(one.features) == ["Z_B", "Z_D"]


@pytest.mark.parametrize(("visible", "infrared"), [(4, 4), (7, 3), (1, 9)])
def test_paired_batches_hold_every_image_beside_its_own_identity(visible, infrared):
    pids = np.repeat(np.arange(10), visible + infrared)
    modalities = np.tile(["vis"] * visible + ["ir"] * infrared, 10)
    shuffled = np.random.default_rng(0).permutation(len(pids))
    pids, modalities = pids[shuffled], modalities[shuffled]
    batches = paired_batches(pids, modalities, identities=4, images=2, seed=0)
    for halves in batches:
        assert halves.shape == (2, 8)
        assert (modalities[halves[0]] == "vis").all() and (modalities[halves[1]] == "ir").all()
        assert (pids[halves[0]] == pids[halves[1]]).all()
        assert len(np.unique(pids[halves[0]])) >= 3  # an identity may come again where one round ends
    assert set(np.concatenate([halves.ravel() for halves in batches])) == set(range(len(pids)))
    again = paired_batches(pids, modalities, identities=4, images=2, seed=0)
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))
    other = paired_batches(pids, modalities, identities=4, images=2, seed=1)
    assert any((one != two).any() for one, two in zip(batches, other, strict=True))


def test_an_identity_of_one_modality_has_nothing_to_attend_to():
    with pytest.raises(InputError, match="identity 2 has no infrared image"):
        paired_batches(np.array([1, 1, 2]), np.array(["vis", "ir", "vis"]), identities=2, images=2, seed=0)


def test_controls_come_after_the_features_and_need_no_training(run):
    inside = inside_features(run)
    controls = with_controls(run, inside)
    assert list(controls.features) == [*inside.features, "untrained", "pixels", "factors"]
    assert controls.features["untrained"].shape == inside.features["Z"].shape
    assert not np.allclose(controls.features["untrained"], inside.features["Z"], atol=0.1)
    images = run.store(torch.device("cpu")).take(inside.rows).numpy()
    np.testing.assert_allclose(controls.features["pixels"].mean(axis=1), images.mean(axis=(1, 2, 3)) / 255, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "has", "words"),
    [
        (["variant=baseline"], ("Z", "Z_B", "Zbar_D", "Z_M"), "variant=baseline"),
        (["method=agw", "dfe.blocks=6"], ("Z",), "method=agw"),
    ],
)
def test_a_feature_that_the_network_lacks_is_named_with_those_that_it_has(finished_run, overrides, has, words):
    run = bdlf.open_run(finished_run(*overrides))
    assert feature_names(run) == has
    assert tuple(inside_features(run).features) == has
    with pytest.raises(InputError, match=rf"Z_D: the network of {words} .* it has {', '.join(has)}"):
        inside_features(run, names=["Z", "Z_D"])


def test_a_wrong_name_or_split_or_image_is_refused(run):
    with pytest.raises(InputError, match="'Zb' is not known; known: Z, Z_B"):
        inside_features(run, names=["Zb"])
    with pytest.raises(InputError, match="'tset' is not known"):
        inside_features(run, split="tset")
    with pytest.raises(InputError, match="has no images in it"):
        inside_features(run, split="val")
    assert len(inside_features(run, split="train", names=["Z"]).rows) == 16
    run.checkpoint["fingerprint"] = "another"
    with pytest.raises(InputError, match="belongs to other images"):
        inside_features(run)


def test_a_run_without_weights_cannot_be_opened(finished_run):
    folder = finished_run()
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(InputError, match=r"last\.pt"):
        bdlf.open_run(folder)


@pytest.mark.parametrize("rule", ["regdb", "sysu", "llcm"])
def test_chance_of_retrieval_is_the_mean_over_random_rankings(rule):
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {"pid": random.integers(0, 5, 60), "camid": random.integers(1, 5, 60), "modality": ["ir"] * 20 + ["vis"] * 40}
    )
    table["path"] = [f"{row}.png" for row in range(60)]
    trial = (np.arange(20), np.arange(20, 60))
    setting = Setting("synthetic", "all", None, "ir_to_vis", "all", None, rule, (trial,))
    results = [score(_unit(random.normal(size=(60, 50))), np.arange(60), table, setting).mean for _ in range(300)]
    expected = random_ranking(setting, table)
    assert np.mean([one["mAP"] for one in results]) == pytest.approx(expected[0], rel=0.03)
    assert np.mean([one["rank1"] for one in results]) == pytest.approx(expected[1], rel=0.08)


def _unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_a_setting_without_its_images_is_refused(run):
    setting = run.settings["test"][0]
    with pytest.raises(InputError, match="1 images that the protocol needs have no feature"):
        placed([setting], np.flatnonzero(run.table["split"] == "test")[1:])
