"""The figure of a run that a sweeper optimises."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from bdlf.config import Config
from bdlf.runs.folder import RunFolder
from bdlf.runs.record import FIGURES
from bdlf.scoring.objective_value import check_objective, objective_names, objective_value
from bdlf.system.errors import InputError


def config_of(objective: str, *, selection="last_epoch", ema: bool = True, dataset: str = "regdb") -> Config:
    config = Config(objective=objective, selection=selection)
    config.dataset.name, config.ema.enabled = dataset, ema
    return config


RULES = ("last_epoch", "validation", "best_on_test")
ROWS = [
    {
        "mode": None,
        "shots": None,
        "direction": direction,
        "gallery": "all",
        "reading": None,
        "feature": feature,
        "flip": flip,
        "model": model,
        "selection": rule,
        "mean": {figure: 1000 * number + place for place, figure in enumerate(FIGURES)},
    }
    for number, (rule, model, direction, feature, flip) in enumerate(
        (rule, model, direction, feature, flip)
        for rule in RULES
        for model in ("ema", "raw")
        for direction in ("ir_to_vis", "vis_to_ir")
        for feature in ("before_bn", "after_bn")
        for flip in (False, True)
    )
]
"""No two figures are equal."""


def expected(figure: str, rule: str, model: str, *directions: str) -> float:
    found = [
        row["mean"][figure]
        for row in ROWS
        if (row["selection"], row["model"], row["feature"], row["flip"]) == (rule, model, "after_bn", True)
        and row["direction"] in directions
    ]
    assert len(found) == len(directions)
    return sum(found) / len(found)


BOTH = ("ir_to_vis", "vis_to_ir")


@pytest.mark.parametrize(
    ("config", "value"),
    [
        (config_of("mean_mAP"), expected("mAP", "last_epoch", "ema", *BOTH)),
        (config_of("mean_mAP", ema=False), expected("mAP", "last_epoch", "raw", *BOTH)),
        (config_of("mean_rank5", selection=list(RULES)), expected("rank5", "validation", "ema", *BOTH)),
        (config_of("mean_mINP", selection="best_on_test"), expected("mINP", "best_on_test", "ema", *BOTH)),
        (config_of("rank1/vis_to_ir"), expected("rank1", "last_epoch", "ema", "vis_to_ir")),
        (config_of("mAP/ir_to_vis-all"), expected("mAP", "last_epoch", "ema", "ir_to_vis")),
    ],
)
def test_the_figure_of_the_model_and_the_epoch_that_are_reported(config, value, tmp_path):
    assert objective_value(config, RunFolder(tmp_path), {"metrics": ROWS}) == value


def test_held_out_identities_give_theirs_at_the_chosen_epoch(tmp_path):
    columns = ["mAP/val-ir_to_vis-all/ema", "mAP/val-vis_to_ir-all/ema", "mAP/val-ir_to_vis-all/raw", "mAP/x/ema"]
    table = pd.DataFrame([[10.0 * epoch + place for place in range(4)] for epoch in range(3)], columns=columns)
    table.insert(0, "epoch", range(3))
    table.to_csv(tmp_path / "metrics.csv", index=False)
    result = {"metrics": ROWS, "chosen": {"validation": {"epoch": 1}, "last_epoch": {"epoch": 2}}}
    config = config_of("val_mean_mAP", selection="validation")
    assert objective_value(config, RunFolder(tmp_path), result) == 10.5


def test_an_unknown_name_lists_the_known_ones():
    for wrong, reason in [
        ("mean_map", "did you mean mean_mAP; known: mean_rank1, .*rank1/ir_to_vis-all, .*mINP/vis_to_ir-all"),
        ("rank1/ir", "is not known"),
        ("val_mean_mAP", "selection=validation"),
    ]:
        with pytest.raises(InputError, match=reason):
            check_objective(config_of(wrong))
    with pytest.raises(InputError, match="any of mAP/ir_to_vis-all-1-shot-agw, mAP/ir_to_vis-indoor-1-shot-agw"):
        check_objective(config_of("mAP/ir_to_vis", dataset="sysu"))
    assert check_objective(config_of("mAP/ir_to_vis-indoor", dataset="sysu")) == "mAP/ir_to_vis-indoor-1-shot-agw"
    assert all(check_objective(config_of(name)) == name for name in objective_names(config_of("mean_mAP")))


def test_an_unknown_name_stops_before_training(tiny_run, tmp_path):
    code, _, err = tiny_run("objective=accuracy")
    assert code == 2 and "known: mean_rank1" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_optuna_optimises_the_figure_of_finished_runs_and_fails_failed_trials(tiny_run, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    code, _, err = tiny_run("optimizer.lr=0.01", "schedule.epochs=1")
    assert code == 0, err
    optuna = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_jobs=1"]
    optuna += ["hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.seed=2"]  # 0.02, 1e30, 0.01
    optuna += ["hydra.sweeper.direction=maximize", "optimizer.lr=choice(1e30,0.01,0.02)", "schedule.epochs=1"]
    code, out, err = tiny_run("-m", *optuna, "hydra.sweeper.max_failure_rate=1")
    assert code == 1 and "1 finished, 1 skipped, 1 failed" in out and "Traceback" not in err, err
    with (tmp_path / "out" / "sweeps" / "multirun" / "jobs.csv").open() as file:
        rows = {row["state"]: row for row in csv.DictReader(file)}
    assert rows["failed"]["objective"] == ""
    figures = {state: float(rows[state]["objective"]) for state in ("skipped", "finished")}
    best = OmegaConf.load(tmp_path / "out" / "sweeps" / "multirun" / "optimization_results.yaml")
    state = max(figures, key=figures.__getitem__)
    assert best.best_value == figures[state] not in (0, 1), "no exit code"
    assert f"optimizer.lr={best.best_params['optimizer.lr']}" in rows[state]["overrides"]
    assert Path(rows["skipped"]["folder"], "result.json").is_file()

    code, out, err = tiny_run("-m", *optuna, "optimizer.lr=choice(1e30,1e31)", "sweep=again")
    assert code == 1 and "max_failure_rate=1" in err and "1 failed\n" in out and "Traceback" not in err, err
