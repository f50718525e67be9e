"""A finished run is scored in another way than before, and nothing is trained for this."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bdlf import experiment
from bdlf.runs import record, tracker
from bdlf.runs.record import row_key
from bdlf.scoring import missing_rows as rescoring
from bdlf.training import loop

SAME = ["deterministic=true"]


@pytest.fixture
def untrained_later(monkeypatch):
    """To be called before the first step that must not be."""
    return lambda: monkeypatch.setattr(loop.Stepper, "step", lambda *_: pytest.fail("a step was trained"))


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def queries_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "per_query.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def require_held(one: Path, other: Path, count: int) -> None:
    """Every row of `one`, `count` in all, stands in `other` with the same figures and the same queries."""
    ours, theirs = result_of(one)["metrics"], result_of(other)["metrics"]
    assert len(ours) == count
    place = {row_key(row): number for number, row in enumerate(theirs)}
    assert len(place) == len(theirs), "no row is there twice"
    arrays, others = queries_of(one), queries_of(other)
    for number, row in enumerate(ours):
        there = place[row_key(row)]
        assert theirs[there] == row
        for name in ("pids", "first_match", "ap", "inp"):
            np.testing.assert_array_equal(arrays[f"{number}.{name}"], others[f"{there}.{name}"])


def test_a_finished_run_is_scored_anew_from_its_weights_as_a_new_run_is(
    tiny_run, finished_run, tmp_path, folder_of, untrained_later
):
    folder = finished_run(*SAME)
    aside = folder.rename(tmp_path / "aside")
    asked = [
        (["evaluation.flip=false"], 4),
        (["evaluation.flip=false", "evaluation.feature=before_bn", "evaluation.direction=vis_to_ir"], 2),
    ]
    fresh = []
    for options, _ in asked:  # trained and scored with these options from the start
        assert tiny_run(*SAME, *options)[0] == 0
        fresh.append(folder_of().rename(tmp_path / f"fresh{len(fresh)}"))
    aside.rename(folder)
    weights = (folder / "checkpoints" / "last.pt").read_bytes()
    config = (folder / "config.yaml").read_bytes()
    plain = result_of(folder)
    untrained_later()

    rows = 4
    for (options, count), other in zip(asked, fresh, strict=True):
        text, arrays = (folder / "result.json").read_text(), queries_of(folder)
        code, out, err = tiny_run(*SAME, *options)
        assert code == 0 and f"result.json also holds {rows} rows of other scorings" in out, err
        assert out.count("last_epoch") == count, "those that are asked for are shown"
        rows += count
        result = result_of(folder)
        assert len(result["metrics"]) == rows and {key: result[key] for key in plain if key != "metrics"} == {
            key: plain[key] for key in plain if key != "metrics"
        }
        old_rows = text[text.index('  "metrics": [') :].partition("\n  ]")[0]
        assert (folder / "result.json").read_text().count(old_rows) == 1, "byte for byte"
        now = queries_of(folder)
        assert len(now) == 4 * rows and all(np.array_equal(arrays[name], now[name]) for name in arrays)
        require_held(other, folder, count)
        addition = result["additions"][-1]
        assert addition["rows"] == [*range(rows - count, rows)] and addition["device"] == "cpu, 1 threads"
        assert addition["versions"] == result["versions"] and {"commit", "dirty"} < set(addition)

        before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
        code, out, _ = tiny_run(*SAME, *options)
        assert code == 0 and "finished before" in out and out.count("last_epoch") == count
        assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before, "asked twice adds nothing"
    assert (folder / "checkpoints" / "last.pt").read_bytes() == weights
    assert (folder / "config.yaml").read_bytes() == config
    code, out, _ = tiny_run(*SAME)
    assert "feature after_bn, cosine similarity, flip averaging on" in out and "flip averaging off" not in out


def test_only_what_is_missing_is_scored(tiny_run, folder_of, monkeypatch):
    tiny_run("evaluation.direction=ir_to_vis")
    scored = []
    original = rescoring.score_models

    def score_models(*arguments, **options):
        found = original(*arguments, **options)
        scored.extend((row["direction"], row["selection"]) for row in found[0][0])
        return found

    monkeypatch.setattr(rescoring, "score_models", score_models)
    assert tiny_run()[0] == 0 and scored == [("vis_to_ir", "last_epoch")] * 2
    directions = [(row["model"], row["direction"]) for row in result_of(folder_of())["metrics"]]
    assert directions == [(name, way) for way in ("ir_to_vis", "vis_to_ir") for name in ("ema", "raw")]


def test_the_epoch_that_a_rule_chose_is_scored_anew_from_its_own_weights(
    tiny_run, folder_of, evaluated, untrained_later
):
    arguments = ["selection=[validation,best_on_test]", "dataset.synthetic.train_identities=8"]
    arguments += ["evaluation.holdout=0.25", "schedule.epochs=3"]
    tiny_run(*arguments)
    untrained_later()
    code, out, err = tiny_run(*arguments, "evaluation.flip=false")
    assert code == 0, err
    for rule in ("validation", "best_on_test"):
        assert f"warning: {rule} chose its epoch with evaluation.flip=true: with evaluation.flip=false only the" in out
    result = result_of(folder_of())
    added = result["metrics"][12:]
    assert len(added) == 12 and [row["flip"] for row in added] == [False] * 12
    for rule in ("last_epoch", "validation", "best_on_test"):
        rows = [row for row in added if row["selection"] == rule]
        expected = evaluated(f"run={folder_of()}", f"selection={rule}", "evaluation.flip=false")["metrics"]
        assert rows == expected and rows[0]["epoch"] == result["chosen"][rule]["epoch"]


def test_the_modes_and_galleries_of_sysu(tiny_run, layouts, tmp_path, untrained_later):
    arguments = ["dataset=sysu", f"dataset.root={layouts}/sysu", "schedule=synthetic", "backbone=resnet10"]
    arguments += ["schedule.epochs=1", "backbone.weights=none", "schedule.steps_per_epoch=2", "image.height=32"]
    code, _, err = tiny_run(*arguments, "evaluation.mode=all")
    assert code == 0, err
    (folder,) = (tmp_path / "out" / "sysu-synthetic").glob("*/seed0")
    untrained_later()
    assert tiny_run(*arguments, "evaluation.mode=indoor")[0] == 0
    assert tiny_run(*arguments, "evaluation.gallery=official", "evaluation.shots=10")[0] == 2, "two images are too few"
    assert tiny_run(*arguments, "evaluation.gallery=official")[0] == 0
    rows = result_of(folder)["metrics"]
    assert [(row["mode"], row["gallery"], row["model"]) for row in rows] == [
        *(("all", "agw", "ema"), ("all", "agw", "raw"), ("indoor", "agw", "ema"), ("indoor", "agw", "raw")),
        *((mode, "official", model) for model in ("ema", "raw") for mode in ("all", "indoor")),
    ]
    assert all(len(row["trials"]) == 10 for row in rows)
    arrays = queries_of(folder)
    for number, row in enumerate(rows):
        assert 100 * np.nanmean(arrays[f"{number}.ap"]) == pytest.approx(row["mean"]["mAP"]), "each row its arrays"


def test_a_process_that_is_killed_between_the_two_files_leaves_nothing_wrong(tiny_run, finished_run, monkeypatch):
    folder = finished_run(*SAME)
    before = (folder / "result.json").read_bytes()

    def kill(*_, **__):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(rescoring, "add_rows", kill)
        assert tiny_run(*SAME, "evaluation.flip=false")[0] == 9
    assert (folder / "result.json").read_bytes() == before and len(queries_of(folder)) == 4 * 8
    assert tiny_run(*SAME)[0] == 0 and (folder / "result.json").read_bytes() == before
    assert tiny_run(*SAME, "evaluation.direction=ir_to_vis", "evaluation.feature=before_bn")[0] == 0
    now = queries_of(folder)
    assert len(now) == 4 * 6, "no arrays are left without a row"
    for number, row in enumerate(result_of(folder)["metrics"]):
        assert 100 * now[f"{number}.ap"].mean() == pytest.approx(row["mean"]["mAP"])


def test_what_needs_weights_that_are_gone_says_so_in_one_line(tiny_run, folder_of, untrained_later):
    tiny_run("evaluation.every=2")
    untrained_later()
    folder = folder_of()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    code, out, _ = tiny_run()
    assert code == 0 and "warning" not in out
    code, out, _ = tiny_run("evaluation.every=2")
    assert code == 0 and "warning" not in out, "these curves are there"
    code, out, _ = tiny_run("evaluation.every=1")
    assert code == 0 and "rank-1" in out and out.count("warning: ") == 1
    assert "warning: evaluation.every=1: " in out and "metrics.csv does not hold these curves" in out
    for arguments, parts in {
        ("selection=best_on_test",): ["selection=best_on_test", "was not trained with it", "rerun=true"],
        ("evaluation.every=0",): ["evaluation.every=0: 1 or more"],
        ("evaluation.feature=middle",): ["evaluation.feature='middle' is not known"],
        ("evaluation.mode=indoor",): ["mode=indoor: it has all"],
    }.items():
        code, _, err = tiny_run(*arguments)
        assert code == 2 and all(part in err for part in parts) and err.count("\n") == 1, err
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before

    (folder / "checkpoints" / "last.pt").rename(folder / "moved.pt")
    code, _, err = tiny_run("evaluation.flip=false")
    assert code == 2 and "checkpoints/last.pt is gone" in err and "rerun=true" in err and err.count("\n") == 1, err
    assert tiny_run("evaluation.direction=ir_to_vis")[0] == 0, "what is there needs no weights"
    (folder / "moved.pt").rename(folder / "checkpoints" / "last.pt")
    (folder / "per_query.npz").write_bytes(b"damaged")
    code, _, err = tiny_run("evaluation.flip=false")
    assert code == 2 and "per_query.npz does not hold the queries of the 4 rows" in err and err.count("\n") == 1, err


def test_a_dry_run_says_what_would_be_scored_and_writes_nothing(tiny_run, finished_run, folder_of):
    before = {file: file.stat().st_mtime_ns for file in finished_run().rglob("*")}
    code, out, _ = tiny_run("evaluation.flip=false", "dry_run=true")
    assert code == 0 and "dry run: scores 4 more rows of" in out
    assert {file: file.stat().st_mtime_ns for file in folder_of().rglob("*")} == before


def test_weights_of_another_epoch_are_not_scored_under_the_name_of_the_last(tiny_run, finished_run, folder_of):
    checkpoints = finished_run() / "checkpoints"
    (checkpoints / "last-1.pt").replace(checkpoints / "last.pt")
    code, _, err = tiny_run("evaluation.flip=false")
    assert code == 2 and "last.pt does not hold the weights after epoch 1" in err and err.count("\n") == 1, err
    assert len(result_of(folder_of())["metrics"]) == 4


def stop_after_an_epoch(monkeypatch, tiny_run, *arguments: str) -> None:
    def stop(*_):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(tracker.Tracker, "epoch", stop)
        assert tiny_run(*arguments)[0] == 9


ASKED_LATER = {
    ("selection=best_on_test",): {
        ("selection=best_on_test", "evaluation.flip=false"): "flip=true, not",
        (): "selection=[last_epoch,best_on_test], not selection=[last_epoch]",
    },
    (): {
        ("selection=best_on_test",): "selection=[last_epoch], not selection=[last_epoch,best_on_test]",
        ("evaluation.every=1",): "evaluation.every=null, not evaluation.every=1",
    },
    ("evaluation.every=1",): {
        ("evaluation.every=2",): "evaluation.every=1, not evaluation.every=2",
        ("evaluation.every=1", "evaluation.direction=ir_to_vis"): "direction=null, not",
    },
}
"""What an unfinished run was started with; what it may not be called with then; what the message says."""


@pytest.mark.parametrize(
    "recorded",
    [asked if k == 0 else pytest.param(asked, marks=pytest.mark.slow) for k, asked in enumerate(ASKED_LATER)],
)
def test_an_unfinished_run_whose_epochs_are_compared_is_not_scored_in_two_ways(
    tiny_run, folder_of, monkeypatch, recorded
):
    stop_after_an_epoch(monkeypatch, tiny_run, *recorded)
    config = (folder_of() / "config.yaml").read_bytes()
    for asked, said in ASKED_LATER[recorded].items():
        code, _, err = tiny_run(*asked)
        assert code == 2 and said in err and "once the run is finished" in err and err.count("\n") == 1, err
        assert (folder_of() / "config.yaml").read_bytes() == config


def test_an_unfinished_run_that_is_scored_at_its_end_may_be_scored_in_any_way(tiny_run, folder_of, monkeypatch):
    stop_after_an_epoch(monkeypatch, tiny_run)
    code, out, err = tiny_run("evaluation.direction=vis_to_ir", "evaluation.flip=false")
    assert code == 0 and "going on at epoch 2 of 2" in out, err
    table = pd.read_csv(folder_of() / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1] and table["rank1/vis_to_ir-all-all/ema"].notna().tolist() == [False, True]
    assert "rank1/ir_to_vis-all-all/ema" in table, "no column is lost"
    assert [row["flip"] for row in result_of(folder_of())["metrics"]] == [False, False]


def test_a_finished_run_is_answered_without_building_anything(tiny_run, finished_run, monkeypatch):
    finished_run()
    for name in ("build_network", "open_images", "settings", "train_on_all"):
        monkeypatch.setattr(experiment, name, lambda *_, **__: pytest.fail("something was built"))
    assert tiny_run("evaluation.direction=ir_to_vis")[0] == 0


def test_a_query_file_keeps_the_arrays_of_earlier_rows_alone(tmp_path):
    random = np.random.default_rng(0)

    class Row:
        def __init__(self, queries):
            self.pids = random.integers(9, size=queries)
            self.first_match, self.ap, self.inp = (random.random((2, queries)) for _ in range(3))

    rows, path = [Row(queries) for queries in (3, 5, 4, 6)], tmp_path / "per_query.npz"
    record.write_per_query(path, rows[:3])
    record.write_per_query(path, rows[3:], add_to=2)  # the third row was left by a process that was killed
    with np.load(path) as arrays:
        assert sorted(arrays.files) == sorted(f"{n}.{name}" for n in range(3) for name in vars(rows[0]))
        for number, row in enumerate([*rows[:2], rows[3]]):
            assert all(np.array_equal(arrays[f"{number}.{name}"], array) for name, array in vars(row).items())
