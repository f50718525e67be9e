"""Runs that were cut off go on from what lies in their folder."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch

from bdlf.experiment import Experiment
from bdlf.runs import identity
from bdlf.training import loop
from bdlf.training.checkpoint import load_checkpoint, save_checkpoint
from bdlf.training.scoring import Scorer

TIMES = ["images_per_second", "seconds", "memory_gib"]


def interrupt_at(monkeypatch, call: int) -> None:
    """Raise SIGINT, as Ctrl-C does, in the `call`-th training step from now."""
    original, seen = loop.Stepper.step, [0]

    def counted(self, *arguments):
        seen[0] += 1
        if seen[0] == call:
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(loop.Stepper, "step", counted)


def require_same(one: Path, other: Path) -> None:
    """Require that weights, averages, momenta and rows of two run folders are equal bit for bit."""
    rows = [pd.read_csv(folder / "metrics.csv").drop(columns=TIMES) for folder in (one, other)]
    pd.testing.assert_frame_equal(*rows, check_exact=True)
    states = [load_checkpoint(folder / "checkpoints" / "last.pt") for folder in (one, other)]
    for part in ("model", "averaged"):
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])
    momenta = [state["optimizer"]["state"] for state in states]
    assert all(
        torch.equal(momenta[0][key]["momentum_buffer"], momenta[1][key]["momentum_buffer"]) for key in momenta[0]
    )


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_an_interrupted_run_goes_on_to_the_same_weights(tiny_run, finished_run, tmp_path, monkeypatch, step):
    arguments = ["schedule.epochs=4", "deterministic=true"]
    finished_run(*arguments)
    assert tiny_run(*arguments, "rerun=true", "dry_run=true")[0] == 0  # writes nothing
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        code, out, _ = tiny_run(*arguments, "rerun=true")
    assert code == 75 and "the same command without rerun=true goes on" in out
    finished, resumed = sorted(
        (tmp_path / "out" / "synthetic").glob("*/seed*"), key=lambda path: ".old" not in path.name
    )
    assert finished.name == "seed0.old1"
    code, out, _ = tiny_run(*arguments)
    assert code == 0 and f"going on at epoch {step // 2 + 1} of 4, step {step % 2 + 1} of 2" in out
    require_same(finished, resumed)


def test_checkpoints_in_the_middle_of_an_epoch_change_no_number(tiny_run, finished_run, tmp_path, folder_of):
    folder = finished_run("deterministic=true").rename(tmp_path / "plain")
    tiny_run("deterministic=true", "checkpoint.every_steps=1", "checkpoint.keep=3")
    assert {file.name for file in (folder_of() / "checkpoints").glob("*.pt")} == {"last.pt", "last-1.pt", "last-2.pt"}
    assert load_checkpoint(folder_of() / "checkpoints" / "last-1.pt")["step"] == 1
    require_same(folder, folder_of())


@pytest.mark.slow
def test_where_the_images_lie_changes_no_number(tiny_run, tmp_path, folder_of):
    code, out, _ = tiny_run("deterministic=true")
    assert code == 0 and out.count("images     ") == out.count("MiB on disk") == 1
    folder = folder_of().rename(tmp_path / "plain")
    for cache, place in {"host": "in memory", "device": "on the device"}.items():
        code, out, _ = tiny_run("deterministic=true", f"data.cache={cache}", "rerun=true")
        assert code == 0 and out.count("images     ") == out.count(f"MiB {place}") == 1
        require_same(folder, folder_of().with_name("seed0"))
        (folder_of().parent / "seed0").rename(tmp_path / cache)


def test_a_damaged_checkpoint_is_passed_over_and_none_that_is_sound_refused(
    tiny_run, finished_run, tmp_path, monkeypatch, folder_of
):
    whole = finished_run("deterministic=true").rename(tmp_path / "whole")

    def cut_off() -> Path:
        with monkeypatch.context() as patch:
            interrupt_at(patch, 3)
            assert tiny_run("deterministic=true")[0] == 75
        return folder_of() / "checkpoints" / "last.pt"

    checkpoint = cut_off()
    sound = checkpoint.read_bytes()
    checkpoint.write_bytes(sound[:1000])
    code, out, _ = tiny_run("deterministic=true")
    assert code == 0 and "warning: " in out and "last.pt is damaged" in out and "going on from last-1.pt" in out
    assert "going on at epoch 2 of 2, step 1 of 2" in out
    require_same(whole, folder_of())
    folder_of().rename(tmp_path / "fallen_back")

    checkpoint = cut_off()
    sound = checkpoint.read_bytes()
    for file in checkpoint.parent.glob("*.pt"):
        file.write_bytes(sound[:1000])
    code, _, err = tiny_run("deterministic=true")
    assert code == 2 and "last.pt" in err and "remove it" in err and err.count("\n") == 1
    assert checkpoint.read_bytes() == sound[:1000]


def test_a_checkpoint_of_another_run_is_refused(tiny_run, monkeypatch, folder_of):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1)
        tiny_run()
    folder = folder_of()
    checkpoint = folder / "checkpoints" / "last.pt"
    other = folder.with_name("seed1")
    (other / "checkpoints").mkdir(parents=True)
    for name in ("last.pt", "last.pt.sha256"):
        (other / "checkpoints" / name).write_bytes((checkpoint.parent / name).read_bytes())
    code, _, err = tiny_run("seed=1")
    assert code == 2 and "-seed0, this is" in err and "rerun=true" in err


def test_what_scoring_breaks_is_scored_on_the_next_call(tiny_run, monkeypatch, folder_of):
    from bdlf.training import scoring

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_models", lambda *_, **__: (_ for _ in ()).throw(MemoryError("too little")))
        code, _, err = tiny_run()
    assert code == 1 and "too little" in err
    folder = folder_of()
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["epoch"] == 2, "the training is not lost"
    code, out, _ = tiny_run()
    assert code == 0 and "epoch 2/2" not in out
    row = json.loads((folder / "result.json").read_text())["metrics"][0]
    assert pd.read_csv(folder / "metrics.csv")["mAP/ir_to_vis-all-all/ema"].iloc[-1] == row["mean"]["mAP"]


@pytest.mark.slow
def test_rows_of_metrics_that_are_lost_are_missed(tiny_run, monkeypatch, folder_of):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        tiny_run("schedule.epochs=3")
    table = folder_of() / "metrics.csv"
    for damage in (None, "epoch,total\n0,1.0\n", "epoch,total\n0,1.0\n2,1.0\n", "\0"):
        table.unlink() if damage is None else table.write_text(damage)
        before = sorted(folder_of().rglob("*"))
        code, _, err = tiny_run("schedule.epochs=3")
        assert code == 2 and "metrics.csv has not the rows of epochs 0 to 1" in err and err.count("\n") == 1, err
        assert sorted(folder_of().rglob("*")) == before


def test_weights_that_a_rule_chose_are_not_replaced_by_others(tiny_run, folder_of, monkeypatch):
    original = Scorer._score

    def falling(self, split, epoch, rule):
        rows, scores = original(self, split, epoch, rule)
        for row in rows:
            row["mean"]["rank1"] = 50.0 - epoch
        return rows, scores

    monkeypatch.setattr(Scorer, "_score", falling)  # the first epoch is chosen, which a resumed run scores no more
    held_out = ["selection=validation", "dataset.synthetic.train_identities=8", "evaluation.holdout=0.25"]
    tiny_run(*held_out)
    (folder_of() / "result.json").unlink()
    chosen = folder_of() / "checkpoints" / "validation-epoch0.pt"
    sound = chosen.read_bytes()
    for damage, message in {
        lambda: chosen.unlink(): "validation-epoch0.pt is gone, the weights that validation chose",
        lambda: forge(chosen, run_id="00000000-seed0"): "validation-epoch0.pt is of run 00000000-seed0",
        lambda: forge(chosen, epoch=2): "validation-epoch0.pt does not hold the weights after epoch 0",
        lambda: forge(chosen, fingerprint="0" * 64): "belongs to other images (dataset fingerprint 00000000",
    }.items():
        damage()
        code, _, err = tiny_run(*held_out)
        assert code == 2 and message in err and err.count("\n") == 1, err
        assert not (folder_of() / "result.json").exists()
        chosen.write_bytes(sound)
        chosen.with_name(f"{chosen.name}.sha256").unlink(missing_ok=True)


def forge(file: Path, **changes) -> None:
    state = load_checkpoint(file)
    del state["schema"]
    save_checkpoint(file, state | changes)


BAD = {
    "tracker.name=mlflow": "tracker.name='mlflow'",
    "devices=tpu": "devices='tpu'",
    "evaluation.gallery=official": "gallery=official",
    "selection=validation": "",  # holds out none of so few
    "backbone.weights=missing.pth": "missing.pth",
    "checkpoint.keep=0": "checkpoint.keep=0",
    "on_nonfinite=ignore": "on_nonfinite='ignore'",
    "data.cache=ram": "data.cache='ram' is not known; known: auto, device, host, disk",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_mistake_is_found_before_images_are_read_and_moves_no_finished_run(tiny_run, monkeypatch, tmp_path, bad):
    def store(*_):
        raise AssertionError("images were read")

    monkeypatch.setattr(Experiment, "store", store)
    monkeypatch.setattr(identity, "run_hash", lambda config: "00000000")
    finished = tmp_path / "out" / "synthetic" / "full-blocks1-00000000" / "seed0" / "result.json"
    finished.parent.mkdir(parents=True)
    finished.touch()
    code, _, err = tiny_run(bad, "rerun=true")
    assert code == 2 and BAD[bad] in err and err.count("\n") == 1, err
    assert finished.is_file() and not list(tmp_path.rglob("*.old*"))
