"""Inputs that `bdlf.evaluate` refuses, and unusual inputs that do no harm."""

from __future__ import annotations

import os

import numpy as np
import pytest

from bdlf.data import listing
from bdlf.experiment import Experiment


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run=nowhere"], ["nowhere/config.yaml does not exist", "run="]),
        ([], ["one of run=FOLDER, features=FILE.npz, splits=FOLDERS and explain=true", "none is given"]),
        (["run=x", "features=y"], ["run and features are given"]),
        (["features=y", "save_features=true"], ["save_features=true", "features="]),
        (["features=y"], ["dataset=sysu, regdb, llcm or synthetic"]),
        (["features=y", "dataset=synthetic", "evaluation.flip=true"], ["evaluation.flip"]),
        (["features=y.npz", "dataset=synthetic"], ["y.npz does not exist"]),
        (["features=y", "dataset=market"], ["market", "regdb"]),
        (["features=y", "dataset=regdb"], ["dataset.split=1..10"]),
        (["splits=nowhere/*"], ["nowhere/*", "no such folder"]),
        (["splits=x", "evaluation.mode=all"], ["evaluation.mode=all", "collates what the runs' results hold"]),
        (["splits=x", "selection=validation"], ["selection=validation", "makes no use of it"]),
        (["run=x", "dataset.seed=0"], ["dataset.seed=0", "a run knows its dataset"]),
        (["run=x", "dataset.synthetic.test_identities=8"], ["test_identities=8", "a run knows its dataset"]),
        (["run=x", "evaluation.modes=all"], ["evaluation.modes", "did you mean 'evaluation.mode'"]),
    ],
)
def test_evaluate_refuses(command, arguments, parts):
    code, _, err = command("evaluate", *arguments)
    assert code == 2 and all(part in err for part in parts) and err.count("\n") == 1, err


def test_a_configuration_beside_a_checkpoint_is_data(finished_run, command, tmp_path):
    folder = finished_run()
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("label: null", "label: ${oc.env:HOME}"))
    code, _, err = command("evaluate", f"run={folder}", "devices=cpu", f"data.cache_dir={tmp_path}/cache")
    assert code == 2 and "interpolation" in err and os.environ["HOME"] not in err


def test_an_unknown_place_for_the_images_is_refused_before_they_are_read(finished_run, command, monkeypatch):
    folder = finished_run()
    monkeypatch.setattr(Experiment, "store", lambda *_: pytest.fail("images were read"))
    code, _, err = command("evaluate", f"run={folder}", "devices=cpu", "data.cache=ram")
    assert code == 2 and "data.cache='ram' is not known; known: auto, device, host, disk" in err, err


@pytest.fixture
def foreign():
    """Arrays of a features file for the synthetic test set, random."""
    drawn = {"seed": 0, "train_identities": 4, "test_identities": 4, "images_per_identity": 2}
    table = listing("synthetic", None, synthetic=drawn)
    test = table[table["split"] == "test"]
    return {
        "features": np.random.default_rng(0).normal(size=(len(test), 5)),
        "pids": test["pid"].to_numpy(),
        "camids": test["camid"].to_numpy(),
        "modalities": test["modality"].to_numpy(dtype=str),
        "paths": test["path"].to_numpy(dtype=str),
    }


def _nan(a):
    a["features"][3] = np.nan


def _thermal(a):
    a["modalities"] = np.where(a["modalities"] == "ir", "thermal", "vis")


def _absolute(a):
    a["paths"] = np.char.add("/data/", a["paths"])


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda a: a.pop("camids"), ["lacks the array 'camids'"]),
        (lambda a: a.update(pids=a["pids"][:-1]), ["pids", "[15]", "16 features"]),
        (lambda a: a.update(features=a["features"][0]), ["features", "[5]", "images x dimensions"]),
        (lambda a: a.update(features=a["features"].astype(object)), ["Object arrays"]),
        (lambda a: a.update(pids=a["pids"] + 1), ["pids of 16 images", "for"]),
        (lambda a: a.update(pids=a["pids"].astype(str)), ["pids has type", "whole numbers"]),
        (_thermal, ["modalities of 8", "thermal for ir"]),
        (_absolute, ["none of its 16 paths", "relative to dataset.root"]),
        (lambda a: a.update(paths=a["paths"][[1, *range(1, 16)]]), ["is there twice"]),
        (lambda a: a.update({k: v[2:] for k, v in a.items()}), ["2 images that the protocol needs have no feature"]),
        (_nan, ["1 features are not finite or of length 0"]),
        (lambda a: a.update(features=a["features"] * 0), ["16 features are not finite or of length 0"]),
    ],
)  # fmt: skip
def test_features_that_cannot_be_scored_are_refused_by_name(command, tmp_path, foreign, spoil, parts, test_set):
    spoil(foreign)
    np.savez(tmp_path / "theirs.npz", **foreign)
    code, _, err = command("evaluate", f"features={tmp_path}/theirs.npz", *test_set)
    assert (code == 2 and err.count("\n") == 1 and "theirs.npz" in err) or "protocol needs" in err, err
    assert all(part in err for part in parts), err
    assert not list(tmp_path.glob("**/result.json"))


def test_a_features_file_that_is_none_is_refused(command, tmp_path, foreign, test_set):
    np.savez_compressed(tmp_path / "theirs.npz", **foreign)
    packed = bytearray((tmp_path / "theirs.npz").read_bytes())
    packed[150:180] = bytes(30)  # in the first array's stream
    for content in (b"", b"text", b"PK\x03\x04" + bytes(40), packed):
        (tmp_path / "theirs.npz").write_bytes(content)
        code, _, err = command("evaluate", f"features={tmp_path}/theirs.npz", *test_set)
        assert code == 2 and "theirs.npz cannot be read as features" in err and err.count("\n") == 1, err


def test_rows_beyond_the_test_set_and_windows_paths_do_no_harm(evaluated, tmp_path, foreign, capsys, test_set):
    np.savez(tmp_path / "theirs.npz", **foreign)
    plain = evaluated(f"features={tmp_path}/theirs.npz", *test_set)
    foreign["paths"] = np.char.replace(foreign["paths"], "/", "\\")
    more = {name: np.r_[array, array[:1]] for name, array in foreign.items()}
    more["paths"][-1] = "elsewhere/1.jpg"
    np.savez(tmp_path / "theirs.npz", **more)
    assert evaluated(f"features={tmp_path}/theirs.npz", *test_set)["metrics"] == plain["metrics"]


def test_the_result_of_a_run_is_never_replaced(finished_run, command):
    folder = finished_run()
    before = sorted(folder.rglob("*"))
    code, _, err = command("evaluate", f"run={folder}", f"output={folder}", "save_features=true")
    assert code == 2 and "is a run folder" in err and sorted(folder.rglob("*")) == before
