"""A method that is trained on silhouettes too: which files it needs, and when a run notices that they have changed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.active import SILHOUETTES
from bdlf.assembly import build_objective, open_silhouettes, silhouettes_folder
from bdlf.config import Config, config_folder
from bdlf.data import listing
from bdlf.data.synthetic.drawing import render_silhouettes
from bdlf.data.synthetic.layouts import write_layout
from bdlf.experiment import Experiment
from bdlf.methods import METHODS, build_network
from bdlf.reporting.gather import gather
from bdlf.runs.record import images_of

SMALL = (
    *("method=sgiel", "dataset=regdb", "backbone=resnet10", "backbone.weights=none", "image.height=32"),
    *("image.width=16", "batch.identities=2", "batch.images=2", "schedule.epochs=1", "schedule.steps_per_epoch=1"),
    *("tracker=none", "devices=cpu", "threads=1"),
)


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return OmegaConf.to_object(compose("config", list(overrides)))


@pytest.fixture
def sgiel(command, tmp_path):
    """`sgiel(*overrides)`: trains on a small tree `RegDB` below `tmp_path`, whose silhouettes lie in `maps`."""
    write_layout(
        "regdb", tmp_path / "RegDB", identities=8, images=2, height=32, width=16, silhouettes=tmp_path / "maps"
    )

    def run(*overrides: str) -> tuple[int, str, str]:
        where = [f"dataset.root={tmp_path}/RegDB", f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache"]
        return command("train", *SMALL, *where, *overrides)

    return run


def trained_on(tmp_path) -> list[str]:
    table = listing("regdb", tmp_path / "RegDB")
    return table["path"][table["split"] == "train"].tolist()


def test_a_run_needs_the_silhouettes_of_the_training_images_and_notices_others(sgiel, command, tmp_path, folder_of):
    maps, given = tmp_path / "maps", f"dataset.silhouettes={tmp_path}/maps"
    train = trained_on(tmp_path)
    for path in {*listing("regdb", tmp_path / "RegDB")["path"]} - {*train}:
        (maps / path).unlink()  # no silhouette of a test image is needed
    shutil.move(maps / train[3], tmp_path / "kept.bmp")
    code, _, err = sgiel(given)
    assert code == 2 and err.count("\n") == 1 and train[3] in err and f"(1 of the {len(train)} silhouettes" in err
    (maps / train[3]).write_bytes(b"none")
    code, _, err = sgiel(given)
    assert code == 2 and err.count("\n") == 1 and f"1 of {len(train)} images under {maps}" in err and train[3] in err
    assert not list(tmp_path.rglob("last.pt"))
    shutil.copy(tmp_path / "kept.bmp", maps / train[3])
    code, _, err = sgiel(given)
    assert code == 0, err
    folder = folder_of("regdb-synthetic")
    result = json.loads((folder / "result.json").read_text())
    images, plus, silhouettes = result["fingerprint"].partition("+")
    assert plus and len(images) == len(silhouettes) == 64
    assert len(list((tmp_path / "cache").glob("regdb-silhouettes-32x16-*.npy"))) == 1

    assert set(gather(tmp_path / "out").frame["fingerprint"]) == {images}, "tables compare it with other methods"

    # Wherever the files lie, it is the same run. Others of the same size are noticed.
    moved = maps.rename(tmp_path / "moved")
    code, _, err = sgiel(f"dataset.silhouettes={moved}")
    assert code == 0 and folder_of("regdb-synthetic") == folder, err
    assert json.loads((folder / "result.json").read_text()) == result
    content = bytearray((moved / train[0]).read_bytes())
    content[-1] ^= 255
    (moved / train[0]).write_bytes(content)
    code, _, err = sgiel(f"dataset.silhouettes={moved}")
    assert code == 2 and err.count("\n") == 1 and "was trained on other silhouettes" in err and "rerun=true" in err
    (folder / "result.json").unlink()  # the run goes on from its checkpoint
    code, _, err = sgiel(f"dataset.silhouettes={moved}")
    assert code == 2 and err.count("\n") == 1 and "was trained on other silhouettes" in err, err

    # Scoring the weights needs no silhouettes.
    shutil.rmtree(moved)
    code, _, err = command("evaluate", f"run={folder}", f"output={tmp_path}/scored", "devices=cpu")
    assert code == 0, err
    assert json.loads((tmp_path / "scored" / "result.json").read_text())["fingerprint"] == images


def test_which_runs_take_a_folder_of_silhouettes(sgiel, tiny_run, tmp_path):
    code, _, err = sgiel()
    assert code == 2 and err.count("\n") == 1
    assert all(part in err for part in ("method=sgiel", "set dataset.silhouettes=FOLDER", "human parser", "none are"))
    code, _, err = sgiel("method=agw", f"dataset.silhouettes={tmp_path}/maps")
    assert code == 2 and f"dataset.silhouettes={tmp_path}/maps changes nothing of method=agw; leave it out" in err
    code, _, err = tiny_run("method=sgiel", f"dataset.silhouettes={tmp_path}/maps")
    assert code == 2 and f"dataset.silhouettes={tmp_path}/maps changes nothing of dataset=synthetic" in err
    assert err.count("\n") == 1 and not list(tmp_path.rglob("*.pt"))


def test_the_synthetic_set_draws_the_silhouettes_of_the_training_images(tmp_path):
    words = ("dataset=synthetic", "image.height=32", "image.width=16", f"data.cache_dir={tmp_path}")
    config = composed(*words, "method=sgiel")
    table = Experiment(config).listing.iloc[3:40:2]
    maps = open_silhouettes(config, table, torch.device("cpu"))
    assert maps is not None and silhouettes_folder(config) is None
    assert maps.take(np.arange(len(table))).numpy().tolist() == render_silhouettes(table, 32, 16).tolist()
    assert open_silhouettes(composed(*words, "method=caj"), table, torch.device("cpu")) is None


@pytest.mark.parametrize("method", METHODS)
def test_the_methods_with_silhouettes_are_those_whose_networks_have_views_of_them(method):
    config = composed("dataset=synthetic", f"method={method}", "backbone=resnet10")
    network = build_network(config, 3, build_objective(config), weights="none")
    assert any(view.silhouette for view in network.views) == (method in SILHOUETTES)


def test_the_images_have_one_fingerprint_with_and_without_silhouettes():
    assert images_of("ab" * 32) == images_of("ab" * 32 + "+" + "cd" * 32) == "ab" * 32
