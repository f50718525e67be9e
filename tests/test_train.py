"""`bdlf.train` as a user meets it: the files of a run, how a run goes on, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from bdlf import train
from bdlf.assembly import read_listing
from bdlf.objective import Objective
from bdlf.runs.folder import RunFolder, read_config
from bdlf.runs.identity import run_id
from bdlf.system.locks import held
from bdlf.training.checkpoint import load_checkpoint

KEYS = [
    "dataset",
    "split",
    "mode",
    "shots",
    "direction",
    "gallery",
    "reading",
    "similarity",
    "feature",
    "flip",
    "model",
    "epoch",
    "selection",
]
FIGURES = ["rank1", "rank5", "rank10", "rank20", "mAP", "mINP"]
TIMES = ["images_per_second", "seconds", "memory_gib"]


def test_a_run_leaves_the_folder_of_the_design(tiny_run, tmp_path, folder_of):
    code, out, err = tiny_run("variant=full", "seed=3")
    assert code == 0, err
    folder = folder_of()
    assert re.fullmatch(r"full-blocks1-[0-9a-f]{8}", folder.parent.name) and folder.name == "seed3"
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert names == {
        *("config.yaml", "metrics.csv", "result.json", "per_query.npz", "train.log"),
        *("checkpoints/last.pt", "checkpoints/last-1.pt", "checkpoints/last.pt.sha256"),
    }
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache"}, "nothing is written elsewhere"

    result = json.loads((folder / "result.json").read_text())
    assert result["dataset"] == "synthetic" and result["seed"] == 3 and result["schema"] == 2
    assert result["run_id"] == run_id(read_config(folder / "config.yaml")) == f"{folder.parent.name[-8:]}-seed3"
    assert (
        re.fullmatch("[0-9a-f]{64}", result["fingerprint"])
        and result["versions"]["torch"] == torch.__version__.split("+")[0]
    )
    rows = result["metrics"]
    assert [(row["model"], row["direction"]) for row in rows] == [
        *(("ema", "ir_to_vis"), ("ema", "vis_to_ir"), ("raw", "ir_to_vis"), ("raw", "vis_to_ir")),
    ]
    for row in rows:
        assert list(row) == [*KEYS, "queries", "valid_queries", "mean", "std", "trials"]
        assert row["std"] is None and row["trials"] == [row["mean"]] and list(row["mean"]) == FIGURES
        assert (row["queries"], row["valid_queries"], row["epoch"], row["selection"]) == (8, 8, 1, "last_epoch")
    assert all(f"{rows[0]['mean'][name]:.1f}" in out for name in FIGURES)

    listing = read_listing(read_config(folder / "config.yaml").dataset)
    test_pids = set(listing["pid"][listing["split"] == "test"])
    with np.load(folder / "per_query.npz", allow_pickle=False) as arrays:
        assert len(arrays.files) == 4 * len(rows)
        for index, row in enumerate(rows):
            assert arrays[f"{index}.pids"].dtype == np.int64 and arrays[f"{index}.pids"].shape == (8,)
            assert set(arrays[f"{index}.pids"]) == test_pids, "whose image each query is"
            assert arrays[f"{index}.ap"].shape == (1, 8)
            assert 100 * arrays[f"{index}.ap"].mean() == pytest.approx(row["mean"]["mAP"])
            assert 100 * (arrays[f"{index}.first_match"] == 1).mean() == pytest.approx(row["mean"]["rank1"])

    table = pd.read_csv(folder / "metrics.csv")
    assert list(table["epoch"]) == [0, 1]
    terms = [
        "id",
        "tri",
        "okl",
        "id_detail",
        "odkl",
        "id_base",
        "bkl",
        "id_fused",
        "fbkl",
        "fkl",
        "dkl",
        "dcorr",
        "orth",
        "skd",
    ]
    watched = ["corr_base", "corr_detail", "corr_detail_centred", "attention_own", "gradient_norm", "lr", "total"]
    assert np.isfinite(table[[*terms, *watched, *TIMES]].to_numpy()).all()
    assert table["lr"].tolist() == pytest.approx([0.05, 0.1])
    scored = table[f"rank1/ir_to_vis-all-all/{rows[0]['model']}"]
    assert np.isnan(scored[0]) and scored[1] == rows[0]["mean"]["rank1"]


def test_a_finished_run_returns_its_result_and_touches_nothing(tiny_run, finished_run):
    folder = finished_run()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    code, out, _ = tiny_run()
    assert code == 0 and "finished before" in out and "rank-1" in out
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    code, out, _ = tiny_run("label=another_name")  # the same experiment under another name
    assert "finished before" in out


def test_what_is_off_is_neither_built_nor_logged(tiny_run, folder_of):
    assert tiny_run("variant=baseline")[0] == 0
    folder = folder_of()
    names = load_checkpoint(folder / "checkpoints" / "last.pt")["model"]
    assert not any(name.startswith(("detail.", "classifier_detail.")) for name in names)
    columns = pd.read_csv(folder / "metrics.csv").columns
    assert "id_base" in columns and not {"skd", "fkl", "id_detail", "orth"} & set(columns)


def test_a_nan_names_term_epoch_step_and_identities_and_keeps_the_checkpoint(tiny_run, monkeypatch, folder_of):
    original = Objective.__call__

    def poisoned(self, embeddings, labels, progress):
        losses = original(self, embeddings, labels, progress)
        if progress >= 0.75:  # second epoch, second step
            losses.values["dcorr"].fill_(float("nan"))
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "__call__", poisoned)
        code, _, err = tiny_run()
    assert code == 1
    assert re.search(r"dcorr is not finite at epoch 1, step 1 \(identities \d+, \d+\)", err) and err.count("\n") == 1
    folder = folder_of()
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["epoch"] == 1
    assert "Traceback" in (folder / "train.log").read_text() and "Traceback" not in err
    assert not (folder / "result.json").exists()
    assert tiny_run()[0] == 0, "and the run goes on when the cause is gone"


def test_a_run_of_other_images_is_refused(tiny_run, finished_run):
    path = finished_run() / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"fingerprint": "0" * 64}))
    code, _, err = tiny_run()
    assert code == 2 and "belongs to other images" in err and "rerun=true" in err
    path.write_text(json.dumps(result | {"commit": "f" * 40}))
    code, out, _ = tiny_run()
    assert code == 0 and (result["commit"] is None or "is of commit ffffffff" in out)
    path.write_text(json.dumps(result | {"run_id": "0" * 8 + "-seed0"}))
    code, _, err = tiny_run()
    assert code == 2 and "result.json is of run 00000000-seed0" in err
    path.write_text(json.dumps(result)[:-30])
    code, _, err = tiny_run()
    assert code == 2 and "result.json" in err


def test_dry_run_writes_nothing_and_says_what_would_run(tiny_run, tmp_path):
    code, out, _ = tiny_run("dry_run=true", "variant=dfe_app")
    assert code == 0 and not list(tmp_path.iterdir())
    assert all(part in out for part in ("starts in", "dfe_app", "2 epochs x 2 steps", "fkl x 1", "M parameters"))


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["dataset=sysu", "dataset.root=/nowhere"], ["/nowhere", "BDLF_DATA"]),
        (["dataset.synthetic.train_identities=1"], ["2 identities"]),
        (["backbone=resnet10", "backbone.weights=imagenet"], ["resnet10"]),
        (["backbone.weights=missing.pth"], ["missing.pth"]),
        (["dfe.stage=5"], ["dfe.stage=5", "1, 2, 3, 4"]),
        (["dfe.blocks=0"], ["blocks"]),
        (["precision=16"], ["'16'", "32-true, bf16-mixed"]),
        (["precision=16-mixed"], ["'16-mixed'", "bf16-mixed"]),
        (["devices=tpu"], ["devices='tpu'", "auto, cpu, cuda"]),
        (["schedule.epochs=0"], ["schedule.epochs=0"]),
        (["label=a/b"], ["label='a/b'"]),
        (["tracker.name=mlflow"], ["mlflow", "wandb, none"]),
        (["loss.skd.form=wild"], ["wild", "stable"]),
        (["loss.tri.weight=-1"], ["tri", "-1"]),
        (["ema.decay=2"], ["ema.decay"]),
        (["evaluation.feature=middle"], ["evaluation.feature", "middle", "after_bn"]),
        (["evaluation.batch=0"], ["evaluation.batch=0"]),
        (["evaluation.every=0"], ["evaluation.every=0"]),
        (["seed=-1"], ["seed=-1"]),
        (["threads=0"], ["threads=0"]),
        (["optimizer.clip=-1"], ["optimizer.clip=-1"]),
        (["optimizer.lr=0"], ["optimizer.lr=0"]),
        (["optimizer.momentum=0"], ["optimizer.momentum=0"]),
        (["schedule.steps_per_epoch=0"], ["schedule.steps_per_epoch=0"]),
        (["evaluation.mode=indoor"], ["mode=indoor", "synthetic"]),
        (["+surprise=1"], ["'surprise'"]),
        (["augment.flip=2"], ["flip"]),
        (["image.width=0"], ["image.width"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_result(tiny_run, tmp_path, overrides, parts):
    code, _, err = tiny_run(*overrides)
    assert code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert all(part in err for part in parts), err
    assert not list(tmp_path.glob("out/*/*")), "no run folder, no train.log, no lock"


def test_a_result_of_an_older_version_says_so(tiny_run, finished_run):
    path = finished_run() / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1}))
    code, _, err = tiny_run()
    assert code == 2 and err.count("\n") == 1
    assert "result.json is of an older version of bdlf (schema 1, here 2)" in err and "train the run again" in err


def test_two_labels_of_one_run_share_its_lock_and_its_folder(tiny_run, tmp_path, folder_of):
    here, there = (RunFolder(tmp_path / f"{label}-12345678" / "seed0") for label in ("one", "an-other"))
    assert here.lock == there.lock == tmp_path / ".12345678-seed0.lock"
    assert here.lock != RunFolder(tmp_path / "one-12345678" / "seed1").lock

    assert tiny_run("label=first")[0] == 0
    name = json.loads((folder_of() / "result.json").read_text())["run_id"]
    with held(tmp_path / "out" / "synthetic" / f".{name}.lock", "the run", remedy=""):
        code, _, err = tiny_run("label=second", "rerun=true")
    assert code == 75 and f"run {name} is being written by process" in err and err.count("\n") == 1


def test_a_folder_that_is_made_while_waiting_for_the_lock_is_found(tiny_run, tmp_path, monkeypatch, folder_of):
    """Another process finishes the run under another label while this one waits for the lock."""
    tiny_run("label=first")
    made = folder_of().parent
    aside = made.rename(tmp_path / "aside")
    original = train.held

    def slow(*arguments, **options):
        aside.rename(made)
        return original(*arguments, **options)

    monkeypatch.setattr(train, "held", slow)
    code, out, _ = tiny_run("label=second")
    assert code == 0 and folder_of().parent == made and "epoch 1/2" not in out
