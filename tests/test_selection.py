"""Epochs chosen by a rule: on held-out identities, or on the test set under a label that says so."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.command import register
from bdlf.config import Config, config_folder
from bdlf.runs.identity import run_hash
from bdlf.training.checkpoint import load_checkpoint

THREE = "selection=[last_epoch,validation,best_on_test]"
HELD_OUT = ["dataset.synthetic.train_identities=8", "evaluation.holdout=0.25", "schedule.epochs=3"]


def test_three_ways_to_choose_an_epoch_stand_side_by_side(tiny_run, evaluated, folder_of):
    code, out, err = tiny_run(THREE, *HELD_OUT)
    assert code == 0, err
    folder = folder_of()
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


@pytest.mark.parametrize(
    "killed",
    ["bdlf.runs.tracker.Tracker.epoch", "bdlf.scoring.save_checkpoint", "bdlf.runs.metrics_log.MetricsLog.amend"],
)
def test_choosing_an_epoch_survives_an_end_at_any_moment(tiny_run, tmp_path, monkeypatch, folder_of, killed):
    """After an epoch was scored, before its weights are kept as the best, before its scores are written."""
    arguments = [THREE, *HELD_OUT, "deterministic=true"]
    tiny_run(*arguments)
    folder = folder_of()
    whole = json.loads((folder / "result.json").read_text())
    folder.rename(tmp_path / "whole")

    def kill(*_):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(killed, kill)
        assert tiny_run(*arguments)[0] == 9
    assert tiny_run(*arguments)[0] == 0
    parts = json.loads((folder / "result.json").read_text())
    assert (parts["metrics"], parts["chosen"]) == (whole["metrics"], whole["chosen"])


def test_without_a_rule_validation_identities_are_trained_on_and_nothing_more_is_scored(tiny_run, folder_of):
    tiny_run()
    folder = folder_of()
    curves = pd.read_csv(folder / "metrics.csv")
    assert not [name for name in curves if "val-" in name] and curves[
        "rank1/ir_to_vis-all-all/ema"
    ].isna().tolist() == [True, False]
    assert not list((folder / "checkpoints").glob("*validation*"))


def test_rules_are_part_of_the_experiment():
    register(Config, "config")

    def place(*overrides: str) -> str:
        with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
            return run_hash(OmegaConf.to_object(compose("config", list(overrides))))

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
