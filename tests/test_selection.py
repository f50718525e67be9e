"""Epochs chosen by a rule: on held-out identities, or on the test set under a label that says so."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.config import config_folder
from bdlf.evaluation import Choice
from bdlf.runs.folder import RunFolder
from bdlf.runs.identity import run_hash
from bdlf.runs.metrics_log import MetricsLog
from bdlf.runs.selection import selection_rules
from bdlf.training import saving, scoring, selected
from bdlf.training.checkpoint import has_checkpoint, load_checkpoint, load_newest
from bdlf.training.loop import Progress

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
        assert len(arrays.files) == 4 * len(rows)

    again = evaluated(f"run={folder}", "selection=validation")
    assert again["metrics"] == rows[4:8] and again["selection"] == "validation"
    state = load_checkpoint(folder / "checkpoints" / "last.pt")
    classes = {weight.shape[0] for name, weight in state["model"].items() if "classifier" in name}
    assert classes == {6}, "the identities held out are not trained on"


@pytest.mark.parametrize(
    "killed",
    [
        pytest.param("bdlf.runs.tracker.Tracker.epoch", marks=pytest.mark.slow),
        pytest.param("bdlf.training.selected.SelectedWeights.keep", marks=pytest.mark.slow),
        "bdlf.runs.metrics_log.MetricsLog.amend",
    ],
)
def test_choosing_an_epoch_survives_an_end_at_any_moment(tiny_run, finished_run, tmp_path, monkeypatch, killed):
    """After an epoch was scored, before its weights are kept as the best, before its scores are written."""
    arguments = [THREE, *HELD_OUT, "deterministic=true"]
    folder = finished_run(*arguments)
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


def test_without_a_rule_validation_identities_are_trained_on_and_nothing_more_is_scored(finished_run):
    folder = finished_run()
    curves = pd.read_csv(folder / "metrics.csv")
    assert not [name for name in curves if "val-" in name] and curves[
        "rank1/ir_to_vis-all-all/ema"
    ].isna().tolist() == [True, False]
    assert not list((folder / "checkpoints").glob("*validation*"))


def test_held_out_identities_are_part_of_the_experiment_and_a_choice_between_its_epochs_is_not():
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        plain = compose("config")

    def place(*overrides: str) -> str:
        return run_hash(OmegaConf.to_object(OmegaConf.merge(plain, OmegaConf.from_dotlist(list(overrides)))))

    validation = "selection=validation"
    same = [[], ["selection=[last_epoch]"], ["selection=best_on_test"], ["evaluation.holdout=0.5"]]
    assert len({place(*overrides) for overrides in [*same, ["evaluation.every=1"], ["evaluation.flip=false"]]}) == 1
    assert place(validation) == place(validation, "evaluation.every=2") == place(THREE)
    assert len({place(*overrides) for overrides in [[], [validation], [validation, "evaluation.holdout=0.5"]]}) == 3


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


FAULT = [10.0, 20.0, 40.0]
"""Rank-1 by epoch until the run is killed in its third epoch."""
AFTERWARDS = [11.0, 18.0, 15.0, 12.0]
"""Rank-1 by epoch on a machine that does not reproduce the first one bit for bit."""
MOMENTS = {
    "the checkpoint of the second epoch is written": (saving.Saver, "save", lambda _, progress: progress.epoch == 2),
    "the third epoch is scored": (scoring.Scorer, "_score", lambda _, split, epoch, rule: epoch == 2),
    "the weights of the third epoch are kept": (
        selected.SelectedWeights,
        "keep",
        lambda _, rule, epoch, state: epoch == 2,
    ),
}
"""After what the run is killed."""


@pytest.mark.parametrize(
    ("moment", "keep", "damaged"),
    [
        ("the checkpoint of the second epoch is written", 2, True),
        pytest.param("the third epoch is scored", 1, False, marks=pytest.mark.slow),
        pytest.param("the weights of the third epoch are kept", 2, False, marks=pytest.mark.slow),
    ],
)
def test_the_chosen_epoch_is_of_the_timeline_that_the_run_ends_on(
    tiny_run, monkeypatch, folder_of, evaluated, moment, keep, damaged
):
    """The third epoch scores best and its weights are kept, but no checkpoint follows and the process is killed."""
    original = scoring.score_models

    def score_models(*arguments, epoch, **options):
        (rows, found), features = original(*arguments, epoch=epoch, **options)
        for row in rows:
            row["mean"]["rank1"] = scores[epoch]
        return (rows, found), features

    monkeypatch.setattr(scoring, "score_models", score_models)
    arguments = ["selection=best_on_test", f"checkpoint.keep={keep}", "schedule.epochs=4"]
    scores = FAULT
    owner, name, when = MOMENTS[moment]
    call = getattr(owner, name)

    def killed_there(*arguments, **options):
        result = call(*arguments, **options)
        if when(*arguments, **options):
            raise SystemExit(9)
        return result

    due = iter([True, True, False])  # a checkpoint after the first and the second epoch
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed_there)
        patch.setattr(saving.Saver, "due_after_epoch", lambda _: next(due))
        assert tiny_run(*arguments)[0] == 9
    folder = folder_of()
    if damaged:
        checkpoint = folder / "checkpoints" / "last.pt"
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    scores = AFTERWARDS
    code, out, err = tiny_run(*arguments)
    assert code == 0 and ("going on from last-1.pt" in out) == damaged, err

    curve = pd.read_csv(folder / "metrics.csv")["rank1/ir_to_vis-all-all/ema"]
    assert curve.tolist() == (AFTERWARDS if damaged else [*FAULT[:1], *AFTERWARDS[1:]])
    result = json.loads((folder / "result.json").read_text())
    assert result["chosen"]["best_on_test"]["epoch"] == 1
    assert result["chosen"]["best_on_test"]["mean_rank1"] == curve[1] == 18.0
    (kept,) = (folder / "checkpoints").glob("best_on_test*.pt")
    assert kept.name == "best_on_test-epoch1.pt" and load_checkpoint(kept)["criterion"] == 18.0
    assert evaluated(f"run={folder}", "selection=best_on_test")["metrics"][0]["epoch"] == 1


def test_what_a_process_left_that_was_killed_after_its_result_is_removed(tiny_run, finished_run, folder_of):
    finished_run("selection=best_on_test")
    folder, files = RunFolder(folder_of()), set(folder_of().rglob("*"))
    (chosen,) = folder.selected("best_on_test").values()
    for number in (7, 10):
        folder.weights_of("best_on_test", number).write_bytes(chosen.read_bytes())
    (folder.path / ".result.json.1.tmp").touch()
    assert folder.weights("best_on_test").name == "best_on_test-epoch10.pt", "the newest, by number"
    tiny_run()
    assert set(folder.path.rglob("*")) > files, "another process may be at it: without its lock all stays"
    folder.lock.touch()
    code, out, _ = tiny_run()
    assert code == 0 and "finished before" in out
    assert set(folder.path.rglob("*")) == files and not folder.lock.exists()


EPOCHS, RULE = 7, "best_on_test"


def test_weights_are_kept_as_long_as_a_checkpoint_needs_them(tmp_path):
    """Two checkpoints are kept. From one after epoch e, epoch e and those after it are scored again."""
    folder = RunFolder(tmp_path)

    def process(progress: Progress) -> selected.SelectedWeights:
        weights = selected.SelectedWeights(folder, [RULE], generations=2)
        weights.go_on(progress)
        return weights

    def kept() -> list[int]:
        return sorted(folder.selected(RULE))

    first = process(Progress())
    first.keep(RULE, 0, {})
    first.checkpoint_saved(Progress(1))
    first.keep(RULE, 1, {})
    assert kept() == [1], "epoch 0 is scored again from the only checkpoint"
    first.checkpoint_saved(Progress(3))
    first.keep(RULE, 4, {})
    assert kept() == [1, 4], "the checkpoint after epoch 2 needs epoch 1"
    first.checkpoint_saved(Progress(6))
    first.keep(RULE, 7, {})
    assert kept() == [1, 4, 7], "and the older checkpoint still does"

    second = process(Progress(6))
    assert kept() == [1, 4], "epochs that are scored again are of a lost timeline"
    second.keep(RULE, 5, {})
    assert kept() == [1, 4, 5], "which checkpoint is the older one is not known here, and it may need epoch 1"
    second.checkpoint_saved(Progress(8))
    assert kept() == [4, 5], "that checkpoint is gone"
    assert {file.name for file in (tmp_path / "checkpoints").iterdir()} == {
        f"{RULE}-epoch{epoch}.pt{end}" for epoch in (4, 5) for end in ("", ".sha256")
    }
    third = process(Progress(6, step=1))
    assert kept() == [4, 5], "in the middle of an epoch, the one before it has been scored"
    third.finish({RULE: 4})
    assert kept() == [4]
    process(Progress())
    assert kept() == []


class Killed(BaseException):
    """Stands for SIGKILL: nothing that comes later is done."""


class Weights:
    """Stands for the weights: one number, which differs after each epoch of each process."""

    stamp = 0

    def state_dict(self):
        return {"stamp": self.stamp}

    def load_state_dict(self, state):
        self.stamp = state["stamp"]


class Simulation:
    """A run whose epochs take no time. Its processes follow one another, and each is killed at some moment."""

    def __init__(self, folder, random, keep, monkeypatch):
        self.folder, self.random, self.keep, self.stamps = RunFolder(folder), random, keep, 0
        self.until_killed = None
        for owner, name in (
            (saving, "save_checkpoint"),
            (selected, "save_checkpoint"),
            (selected.SelectedWeights, "_remove"),
            (MetricsLog, "amend"),
        ):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))
        monkeypatch.setattr(scoring.Scorer, "_score", self.score)

    def counted(self, call):
        def wrapper(*arguments, **options):
            self.event()
            call(*arguments, **options)
            self.event()

        return wrapper

    def event(self):
        if self.until_killed is not None:
            self.until_killed -= 1
            if self.until_killed < 0:
                raise Killed

    def score(self, split, epoch, rule):
        """Draw Rank-1 from few values, so that some epochs are equal, and higher in some processes than in others.

        So the best epoch often belongs to an earlier process. mAP says which weights the score belongs to.
        """
        rank1 = self.random.integers(8) + self.higher
        mean = {"rank1": float(rank1), "mAP": float(self.weights.stamp), "mINP": 0.0}
        return [{**vars(WAY), "model": "raw", "mean": mean, "epoch": epoch, "selection": rule}], [None]

    def process(self):
        """Go on as `bdlf.train` does. Returns what the result would say."""
        self.higher = self.random.integers(-6, 7)
        self.weights, store = Weights(), SimpleNamespace(device="cpu")
        trained = scoring.Trained(self.weights, None)
        plan = scoring.Plan(EPOCHS, selection_rules(RULE), None, self.keep)
        identity = {"run_id": "r", "fingerprint": "f"}
        scorer = scoring.Scorer(trained, self.folder, store, None, {"test": [WAY]}, None, plan, identity)
        progress = Progress()
        if has_checkpoint(self.folder.checkpoint):
            state = load_newest(self.folder.checkpoint)
            self.weights.load_state_dict(state["model"])
            progress = Progress.of(state)
        fresh = progress == Progress()
        metrics = MetricsLog(self.folder.metrics, ["epoch", *scorer.columns], keep_epochs=progress.epoch)
        scorer.selected.go_on(progress)
        if progress.epoch and not progress.step:
            scorer.after_epoch(progress.epoch - 1, metrics)
        for epoch in range(progress.epoch, EPOCHS):
            self.stamps += 1
            if self.random.random() < 0.3:
                self.weights.stamp = -self.stamps
                self.save(scorer, Progress(epoch, 1))
            self.weights.stamp = self.stamps
            metrics.append({"epoch": epoch})
            if epoch + 1 == EPOCHS or self.random.random() < 0.6:
                self.save(scorer, Progress(epoch + 1))
            scorer.after_epoch(epoch, metrics)
            if fresh:
                assert len(self.folder.selected(RULE)) <= 1 + self.keep, "what nothing needs is removed"
        (rows, _), chosen = scorer.result(metrics)
        self.until_killed = None  # the result is written: no process goes on from here
        scorer.selected.finish({rule: one["epoch"] for rule, one in chosen.items()})
        return rows, chosen[RULE], pd.read_csv(self.folder.metrics)

    def save(self, scorer, progress):
        state = {"model": self.weights.state_dict(), **progress.state()}
        saving.save_checkpoint(self.folder.checkpoint, state, keep=self.keep)
        scorer.selected.checkpoint_saved(progress)

    def damage(self):
        """Whether the newest checkpoint was damaged; only where an older one is left."""
        older = self.folder.checkpoint.with_name("last-1.pt")
        damaged = older.is_file() and older.read_bytes() != b"damaged" and self.random.random() < 0.5
        if damaged:
            self.folder.checkpoint.write_bytes(b"damaged")
        return damaged


WAY = Choice("synthetic", "all", None, "ir_to_vis", "all", None)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_whenever_a_run_is_killed_and_whichever_checkpoint_it_goes_on_from_the_best_epoch_is_its_own(
    tmp_path, monkeypatch, keep
):
    random = np.random.default_rng(keep)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power is cut here
    kills = fallbacks = 0
    for number in range(60):
        with monkeypatch.context() as patch:
            run = Simulation(tmp_path / str(number), random, keep, patch)
            for killed in range(4):
                run.until_killed = None if killed == 3 else int(random.integers(1, 80))
                try:
                    rows, chosen, curve = run.process()
                    break
                except Killed:
                    kills += 1
                    fallbacks += run.damage()
        scores = curve[f"rank1/{WAY.name.replace(' ', '-')}/raw"]
        assert chosen["epoch"] == scores.idxmax() and chosen["mean_rank1"] == scores.max()
        stamp = curve[f"mAP/{WAY.name.replace(' ', '-')}/raw"][chosen["epoch"]]
        assert rows[1]["mean"]["mAP"] == stamp == run.weights.stamp, "the weights whose score was the best"
        assert list(run.folder.selected(RULE)) == [chosen["epoch"]]
    assert kills > 30 and (fallbacks > 8 or keep == 1)
