"""What W&B is given: its own offline files, read back."""

from __future__ import annotations

import json
import re
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import wandb
from wandb.proto import wandb_internal_pb2 as wandb_records

from bdlf.runs.folder import RunFolder
from bdlf.runs.tracker import rebuild
from bdlf.training import loop


def records(folder: Path) -> Iterator[wandb_records.Record]:
    """Of a `.wandb` file: seven bytes, then LevelDB's log format (32 KiB blocks of checksum, length, kind, data)."""
    (file,) = folder.glob("*.wandb")
    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if place % 32768 > 32768 - 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_records.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def values(items) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_back(folder: Path) -> dict:
    """Run, history by step, summary and exit code of an offline run, once W&B's own process has written its end."""
    for _ in range(200):
        found = read_once(folder)
        if found["exit"] is not None:
            break
        time.sleep(0.1)
    return found


def read_once(folder: Path) -> dict:
    found: dict = {"history": {}, "summary": {}, "exit": None}
    for record in records(folder):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
        elif kind == "history":
            found["history"].setdefault(record.history.step.num, {}).update(values(record.history.item))
        elif kind == "summary":
            found["summary"] |= values(record.summary.update)
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def offline_runs(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("out/synthetic/*/seed*/wandb/offline-run-*"))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)


def assert_is(folder: Path, run: dict) -> None:
    """A W&B run holds every value of the run folder that it lies in."""
    place = folder.parents[1]
    result = json.loads((place / "result.json").read_text())
    curves = pd.read_csv(place / "metrics.csv")
    assert run["exit"] == 0 and run["run"].run_id == result["run_id"] == f"{place.parent.name[-8:]}-{place.name}"
    assert run["run"].run_group == place.parent.name
    for epoch, row in curves.iterrows():
        logged = run["history"][epoch]
        assert {name: logged[name] for name in row.dropna().index} == pytest.approx(row.dropna().to_dict())
    row = result["metrics"][0]
    assert run["summary"]["rank1/ir_to_vis-all-all/ema"] == row["mean"]["rank1"]
    last = run["history"][len(curves) - 1]
    table = json.loads((folder / "files" / last["result/path"]).read_text())
    first = dict(zip(table["columns"], table["data"][0], strict=True))
    assert len(table["data"]) == 4 and first["mAP"] == row["mean"]["mAP"]
    card = ["fingerprint", "direction", "similarity", "feature", "flip", "model", "epoch", "selection", "valid_queries"]
    assert all(first[name] == {**result, **row}[name] for name in card)


def test_jobs_of_a_sweep_are_runs_of_their_own(tiny_run, tmp_path):
    for seed in (0, 1, 2):
        code, out, _ = tiny_run("tracker=wandb", "sweep=mine", "variant=dfe", f"seed={seed}")
        assert code == 0 and "W&B stopped" not in out, out
    folders = offline_runs(tmp_path)
    assert len(folders) == 3
    ids = set()
    for folder in folders:
        run = read_back(folder)
        assert_is(folder, run)
        ids.add(run["run"].run_id)
        assert set(run["run"].tags) == {"synthetic", "dfe", "stage3", "blocks1", "mine"}
        config = {item.key: json.loads(item.value_json) for item in run["run"].config.update}
        assert config["dfe"]["blocks"] == 1 and config["seed"] == int(folder.parents[1].name[-1])
        (picture,) = (folder / "files" / "media" / "images").glob("batch_*.png")
        logged = run["history"][0]
        assert logged["batch/path"].endswith(picture.name)
        assert (logged["batch/width"], logged["batch/height"]) == (4 * 16, 2 * 32)
    assert len(ids) == 3


def test_a_crash_is_a_failed_run_and_going_on_holds_everything(tiny_run, tmp_path, monkeypatch):
    whole, calls = loop.Stepper.step, []

    def break_down(*arguments):
        calls.append(1)
        if len(calls) == 3:  # the first of the second epoch
            raise MemoryError("out")
        whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Stepper, "step", break_down)
        assert tiny_run("tracker=wandb")[0] == 1
    (crashed,) = offline_runs(tmp_path)
    run = read_back(crashed)
    assert run["exit"] == 1 and set(run["history"]) == {0}

    assert tiny_run("tracker=wandb")[0] == 0
    later = next(folder for folder in offline_runs(tmp_path) if folder != crashed)
    again = read_back(later)
    assert again["run"].run_id == run["run"].run_id
    assert_is(later, again)


def test_pictures_of_licensed_images_stay_here_unless_asked(tiny_run, tmp_path, monkeypatch):
    from bdlf import build

    monkeypatch.setattr(build, "dataset_name", lambda config: "regdb")
    for number, asked in enumerate(["null", "true"]):
        assert tiny_run("tracker=wandb", f"tracker.pictures={asked}", f"seed={number}", "schedule.epochs=1")[0] == 0
    pictures = [len(list(folder.glob("files/media/images/batch_*"))) for folder in offline_runs(tmp_path)]
    assert pictures == [0, 1]


def test_a_broken_wandb_stops_nothing_and_says_so_once(tiny_run, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(OSError("no route")))
    code, out, _ = tiny_run("tracker=wandb", "schedule.epochs=1")
    assert code == 0 and len(re.findall(r"W&B stopped \(OSError: no route\)", out)) == 1


def test_runs_are_rebuilt_from_their_folders(tiny_run, tmp_path):
    assert tiny_run("tracker=none")[0] == 0
    (place,) = tmp_path.glob("out/synthetic/*/seed0")
    assert rebuild(RunFolder(place))
    (folder,) = offline_runs(tmp_path)
    assert_is(folder, read_back(folder))

    (place / "result.json").unlink()
    shutil.rmtree(folder)
    assert rebuild(RunFolder(place))
    (folder,) = offline_runs(tmp_path)
    unfinished = read_back(folder)
    assert unfinished["exit"] == 1 and set(unfinished["history"]) == {0, 1}
    (place / "metrics.csv").unlink()
    assert not rebuild(RunFolder(place))
