"""Scoring again: runs, the features of other code, RegDB's splits, and epochs chosen by a rule."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bdlf.data import listing
from bdlf.training.checkpoint import load_checkpoint, save_checkpoint


def folder_of(tmp_path: Path, dataset: str = "synthetic") -> Path:
    (found,) = (tmp_path / "out" / dataset).glob("*/seed*")
    return found


def test_averaged_and_raw_are_not_mixed_up(tiny_run, command, tmp_path):
    """With a decay near 1 and few steps, the average is the mean of all weights; at decay 0 it is the raw model."""
    tiny_run("ema.decay=0.0")
    rows = json.loads((folder_of(tmp_path) / "result.json").read_text())["metrics"]
    assert [row["mean"] for row in rows[:2]] == [row["mean"] for row in rows[2:]]
    checkpoint = folder_of(tmp_path) / "checkpoints" / "last.pt"
    state = load_checkpoint(checkpoint)
    state["averaged"]["module.backbone.resnet.conv1.weight"].zero_()
    del state["schema"]
    save_checkpoint(checkpoint, state)
    command(
        "evaluate",
        f"run={folder_of(tmp_path)}",
        "devices=cpu",
        f"data.cache_dir={tmp_path}/cache",
        f"output={tmp_path}/e",
    )
    again = json.loads((tmp_path / "e" / "result.json").read_text())["metrics"]
    assert [row["mean"] for row in again[2:]] == [row["mean"] for row in rows[2:]]
    assert [row["mean"] for row in again[:2]] != [row["mean"] for row in rows[:2]]


def test_evaluate_gives_the_numbers_of_the_run(tiny_run, command, tmp_path):
    tiny_run()
    folder = folder_of(tmp_path)
    recorded = (folder / "result.json").read_bytes()
    code, _, err = command("evaluate", f"run={folder}", "devices=cpu", f"data.cache_dir={tmp_path}/cache")
    assert code == 0, err
    (again,) = folder.glob("evaluations/*/result.json")
    assert json.loads(again.read_text())["metrics"] == json.loads(recorded)["metrics"]
    assert (folder / "result.json").read_bytes() == recorded
    code, _, err = command(
        "evaluate",
        f"run={folder}",
        "evaluation.direction=ir_to_vis",
        "evaluation.feature=before_bn",
        f"output={tmp_path}/other",
        "devices=cpu",
    )
    assert code == 0, err
    rows = json.loads((tmp_path / "other" / "result.json").read_text())["metrics"]
    assert [(row["model"], row["direction"], row["feature"]) for row in rows] == [
        *(("ema", "ir_to_vis", "before_bn"), ("raw", "ir_to_vis", "before_bn")),
    ]
    assert rows[0]["mean"] != json.loads(recorded)["metrics"][0]["mean"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run=nowhere"], ["nowhere/config.yaml does not exist", "run="]),
        ([], ["one of run=FOLDER, features=FILE.npz and splits=FOLDERS", "none is given"]),
        (["run=x", "features=y"], ["run and features are given"]),
        (["features=y", "save_features=true"], ["save_features=true", "features="]),
        (["features=y"], ["dataset=sysu, regdb, llcm or synthetic"]),
        (["features=y", "dataset=synthetic", "evaluation.flip=true"], ["evaluation.flip"]),
        (["features=y.npz", "dataset=synthetic"], ["y.npz does not exist"]),
        (["features=y", "dataset=market"], ["market", "regdb"]),
        (["splits=nowhere/*"], ["nowhere/*", "no such folder"]),
        (["run=x", "evaluation.modes=all"], ["evaluation.modes", "did you mean 'evaluation.mode'"]),
    ],
)
def test_evaluate_refuses(command, arguments, parts):
    code, _, err = command("evaluate", *arguments)
    assert code == 2 and all(part in err for part in parts) and err.count("\n") == 1, err


def test_a_configuration_beside_a_checkpoint_is_data(tiny_run, command, tmp_path):
    tiny_run()
    folder = folder_of(tmp_path)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("label: null", "label: ${oc.env:HOME}"))
    code, _, err = command("evaluate", f"run={folder}", "devices=cpu", f"data.cache_dir={tmp_path}/cache")
    assert code == 2 and "interpolation" in err and os.environ["HOME"] not in err


@pytest.fixture
def evaluated(command, tmp_path):
    """`evaluated(*arguments)`: the result that `bdlf.evaluate` writes to `tmp_path/scored`."""

    def run(*arguments: str) -> dict:
        output = [f"output={tmp_path}/scored", "devices=cpu", "threads=1", f"data.cache_dir={tmp_path}/cache"]
        code, _, err = command("evaluate", *arguments, *output)
        assert code == 0, err
        return json.loads((tmp_path / "scored" / "result.json").read_text())

    return run


TEST_SET = ["dataset=synthetic", "dataset.synthetic.test_identities=4", "dataset.synthetic.images_per_identity=2"]
TEST_SET += ["dataset.synthetic.train_identities=4"]


def test_saved_features_give_the_scores_of_the_run_exactly(tiny_run, evaluated, tmp_path):
    tiny_run()
    folder = folder_of(tmp_path)
    recorded = json.loads((folder / "result.json").read_text())
    evaluated(f"run={folder}", "save_features=true")
    saved = (tmp_path / "scored" / "features.npz").rename(tmp_path / "saved.npz")
    with np.load(saved, allow_pickle=False) as file:
        arrays = dict(file)
    assert {name: array.dtype.kind for name, array in arrays.items()} == {
        "features": "f", "pids": "i", "camids": "i", "modalities": "U", "paths": "U"
    }  # fmt: skip
    order = np.random.default_rng(0).permutation(len(arrays["paths"]))
    np.savez(saved, **{name: array[order] for name, array in arrays.items()}, more=np.arange(3))

    result = evaluated(f"features={saved}", *TEST_SET)
    reported = [row for row in recorded["metrics"] if row["model"] == "ema"]
    assert [row["mean"] for row in result["metrics"]] == [row["mean"] for row in reported]
    assert result["test_fingerprint"] == recorded["test_fingerprint"] != recorded["fingerprint"]
    for row in result["metrics"]:
        assert row["model"] == "features" and row["feature"] is row["flip"] is row["epoch"] is row["selection"] is None

    np.savez(saved, **{**arrays, "features": 7 * arrays["features"]})
    scaled = evaluated(f"features={saved}", *TEST_SET)
    assert [row["mean"] for row in scaled["metrics"]] == [row["mean"] for row in reported]


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
def test_features_that_cannot_be_scored_are_refused_by_name(command, tmp_path, foreign, spoil, parts):
    spoil(foreign)
    np.savez(tmp_path / "theirs.npz", **foreign)
    code, _, err = command("evaluate", f"features={tmp_path}/theirs.npz", *TEST_SET)
    assert (code == 2 and err.count("\n") == 1 and "theirs.npz" in err) or "protocol needs" in err, err
    assert all(part in err for part in parts), err
    assert not list(tmp_path.glob("**/result.json"))


def test_a_features_file_that_is_none_is_refused(command, tmp_path):
    for content in (b"", b"text", b"PK\x03\x04" + bytes(40)):
        (tmp_path / "theirs.npz").write_bytes(content)
        code, _, err = command("evaluate", f"features={tmp_path}/theirs.npz", *TEST_SET)
        assert code == 2 and "theirs.npz cannot be read as features" in err and err.count("\n") == 1, err


def test_rows_beyond_the_test_set_and_windows_paths_do_no_harm(evaluated, tmp_path, foreign, capsys):
    np.savez(tmp_path / "theirs.npz", **foreign)
    plain = evaluated(f"features={tmp_path}/theirs.npz", *TEST_SET)
    foreign["paths"] = np.char.replace(foreign["paths"], "/", "\\")
    more = {name: np.r_[array, array[:1]] for name, array in foreign.items()}
    more["paths"][-1] = "elsewhere/1.jpg"
    np.savez(tmp_path / "theirs.npz", **more)
    assert evaluated(f"features={tmp_path}/theirs.npz", *TEST_SET)["metrics"] == plain["metrics"]


def test_the_result_of_a_run_is_never_replaced(tiny_run, command, tmp_path):
    tiny_run()
    folder = folder_of(tmp_path)
    code, _, err = command("evaluate", f"run={folder}", f"output={folder}", f"data.cache_dir={tmp_path}/cache")
    assert code == 2 and "is a run folder" in err


THREE = "selection=[last_epoch,validation,best_on_test]"
HELD_OUT = ["dataset.synthetic.train_identities=8", "evaluation.holdout=0.25", "schedule.epochs=3"]


def test_three_ways_to_choose_an_epoch_stand_side_by_side(tiny_run, evaluated, tmp_path):
    code, out, err = tiny_run(THREE, *HELD_OUT)
    assert code == 0, err
    folder = folder_of(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    curves = pd.read_csv(folder / "metrics.csv")
    assert curves.notna().all(axis=None), "every epoch is scored on both sets"
    chosen = result["chosen"]
    for rule, protocol in {"validation": "val-", "best_on_test": ""}.items():
        columns = [f"rank1/{protocol}{way}-all-all/ema" for way in ("ir_to_vis", "vis_to_ir")]
        mean = curves[columns].mean(axis=1)
        assert chosen[rule]["epoch"] == mean.idxmax(), "the first of equals"
        assert chosen[rule]["mean_rank1"] == pytest.approx(mean.max())
    assert result["held_out_identities"] == 2
    assert "CHOSEN ON THE TEST SET" in chosen["best_on_test"]["rule"] and "CHOSEN ON THE TEST SET" in out

    rows = result["metrics"]
    assert [row["selection"] for row in rows] == ["last_epoch"] * 4 + ["validation"] * 4 + ["best_on_test"] * 4
    for row in rows:
        assert row["epoch"] == chosen[row["selection"]]["epoch"]
        column = f"mAP/{row['direction']}-all-all/{row['model']}"
        assert row["mean"]["mAP"] == pytest.approx(curves[column][row["epoch"]]), "the weights of that very epoch"
    with np.load(folder / "per_query.npz") as arrays:
        assert len(arrays.files) == 3 * len(rows)

    again = evaluated(f"run={folder}", "selection=validation")
    assert again["metrics"] == rows[4:8] and again["selection"] == "validation"
    state = load_checkpoint(folder / "checkpoints" / "last.pt")
    classes = {weight.shape[0] for name, weight in state["model"].items() if "classifier" in name}
    assert classes == {6}, "the identities held out are not trained on"


def test_choosing_an_epoch_survives_an_interruption(tiny_run, tmp_path, monkeypatch):
    from bdlf.runs.tracker import Tracker

    tiny_run(THREE, *HELD_OUT, "deterministic=true")
    folder = folder_of(tmp_path)
    whole = json.loads((folder / "result.json").read_text())
    folder.rename(tmp_path / "whole")

    def interrupt(self, row):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "epoch", interrupt)  # after an epoch was scored
        assert tiny_run(THREE, *HELD_OUT, "deterministic=true")[0] == 75
    assert tiny_run(THREE, *HELD_OUT, "deterministic=true")[0] == 0
    parts = json.loads((folder / "result.json").read_text())
    assert (parts["metrics"], parts["chosen"]) == (whole["metrics"], whole["chosen"])


def test_without_a_rule_validation_identities_are_trained_on_and_nothing_more_is_scored(tiny_run, tmp_path):
    tiny_run()
    folder = folder_of(tmp_path)
    curves = pd.read_csv(folder / "metrics.csv")
    assert not [name for name in curves if "val-" in name] and curves[
        "rank1/ir_to_vis-all-all/ema"
    ].isna().tolist() == [True, False]
    assert {file.name for file in (folder / "checkpoints").iterdir()} == {"last.pt", "last.pt.sha256"}


def test_rules_are_part_of_the_experiment(tiny_run):
    def place(*overrides: str) -> str:
        return re.search("starts in (.*)", tiny_run(HELD_OUT[0], *overrides, "dry_run=true")[1])[1]

    validation = "selection=validation"
    same = [[], ["selection=[last_epoch]"], ["evaluation.holdout=0.5"], ["evaluation.every=1"]]
    other = [[validation], [validation, "evaluation.holdout=0.5"], [validation, "evaluation.every=2"]]
    assert len({place(*overrides) for overrides in same}) == 1
    assert place(validation) == place(validation, "evaluation.every=1")
    assert len({place(*overrides) for overrides in [[], *other, ["selection=best_on_test"]]}) == 5


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["selection=lucky"], ["selection='lucky'", "last_epoch, validation, best_on_test"]),
        (["selection=3"], ["selection=3"]),
        (["selection=validation", "evaluation.holdout=0"], ["evaluation.holdout=0"]),
        (["selection=validation", "evaluation.holdout=0.1"], ["holds out 0 of 4"]),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(tiny_run, arguments, parts):
    code, _, err = tiny_run(*arguments)
    assert code == 2 and all(part in err for part in parts) and err.count("\n") == 1, err


def test_a_run_scores_only_the_rules_and_the_dataset_it_has(tiny_run, command, tmp_path):
    tiny_run()
    run = f"run={folder_of(tmp_path)}"
    for argument, part in {
        "selection=validation": "was trained with selection=last_epoch",
        "dataset=sysu": "a run knows its dataset",
        "dataset.split=2": "train one model for each split",
    }.items():
        code, _, err = command("evaluate", run, argument)
        assert code == 2 and part in err and err.count("\n") == 1, err
