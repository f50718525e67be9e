"""`bdlf.evaluate` scores runs again, and features from files."""

from __future__ import annotations

import json

import numpy as np

from bdlf.training.checkpoint import load_checkpoint, save_checkpoint


def test_averaged_and_raw_are_not_mixed_up(tiny_run, command, tmp_path, folder_of):
    """With a decay near 1 and few steps, the average is the mean of all weights; at decay 0 it is the raw model."""
    tiny_run("ema.decay=0.0")
    rows = json.loads((folder_of() / "result.json").read_text())["metrics"]
    assert [row["mean"] for row in rows[:2]] == [row["mean"] for row in rows[2:]]
    checkpoint = folder_of() / "checkpoints" / "last.pt"
    state = load_checkpoint(checkpoint)
    state["averaged"]["module.backbone.resnet.conv1.weight"].zero_()
    del state["schema"]
    save_checkpoint(checkpoint, state)
    command(
        "evaluate",
        f"run={folder_of()}",
        "devices=cpu",
        f"data.cache_dir={tmp_path}/cache",
        f"output={tmp_path}/e",
    )
    again = json.loads((tmp_path / "e" / "result.json").read_text())["metrics"]
    assert [row["mean"] for row in again[2:]] == [row["mean"] for row in rows[2:]]
    assert [row["mean"] for row in again[:2]] != [row["mean"] for row in rows[:2]]


def test_evaluate_gives_the_numbers_of_the_run(finished_run, command, tmp_path):
    folder = finished_run()
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


def test_saved_features_give_the_scores_of_the_run_exactly(finished_run, evaluated, tmp_path, test_set):
    folder = finished_run()
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

    result = evaluated(f"features={saved}", *test_set)
    reported = [row for row in recorded["metrics"] if row["model"] == "ema"]
    assert [row["mean"] for row in result["metrics"]] == [row["mean"] for row in reported]
    for name in ("fingerprint", "test_fingerprint"):
        assert result[name] == recorded[name]
    for row in result["metrics"]:
        assert row["model"] == "features" and row["feature"] is row["flip"] is row["epoch"] is row["selection"] is None

    np.savez(saved, **{**arrays, "features": 7 * arrays["features"]})
    scaled = evaluated(f"features={saved}", *test_set)
    assert [row["mean"] for row in scaled["metrics"]] == [row["mean"] for row in reported]


def test_a_run_scores_only_the_rules_and_the_dataset_it_has(finished_run, command):
    run = f"run={finished_run()}"
    for argument, part in {
        "selection=validation": "was trained with selection=last_epoch",
        "dataset=sysu": "a run knows its dataset",
        "dataset.split=2": "train one model for each split",
    }.items():
        code, _, err = command("evaluate", run, argument)
        assert code == 2 and part in err and err.count("\n") == 1, err


def test_an_unfinished_run_is_scored_under_that_name(tiny_run, command, tmp_path, monkeypatch, folder_of):
    held_out = ["selection=validation", "dataset.synthetic.train_identities=8", "evaluation.holdout=0.25"]

    def stop(*_):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr("bdlf.runs.tracker.Tracker.epoch", stop)  # the first epoch is scored
        tiny_run(*held_out, "schedule.epochs=3")
    words = [f"run={folder_of()}", "devices=cpu", f"data.cache_dir={tmp_path}/cache"]
    for rule in ("last_epoch", "validation"):
        code, out, err = command("evaluate", *words, f"selection={rule}")
        assert code == 0 and "of a run that has not come to its end" in out, err
    first = sorted(folder_of().glob("evaluations/*/result.json"))
    assert {json.loads(file.read_text())["selection"] for file in first} == {
        *("unfinished last_epoch", "unfinished validation"),
    }
    with monkeypatch.context() as patch:
        patch.setattr("bdlf.training.scoring.Scorer.result", stop)  # all epochs are trained and scored
        tiny_run(*held_out, "schedule.epochs=3")
    for rule, label in {"last_epoch": "last_epoch", "validation": "unfinished validation"}.items():
        assert command("evaluate", *words, f"selection={rule}", f"output={tmp_path}/{rule}")[0] == 0
        assert json.loads((tmp_path / rule / "result.json").read_text())["selection"] == label
    assert command("evaluate", *words)[0] == 0
    now = sorted(folder_of().glob("evaluations/*/result.json"))
    assert len(now) == 3 and set(first) < set(now), "another epoch has another folder"
