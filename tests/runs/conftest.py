"""What the tests of W&B share. They read W&B's own offline files back."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import wandb
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from wandb.proto import wandb_internal_pb2 as wandb_records

from bdlf.config import Config
from bdlf.runs import wandb_run
from bdlf.runs.tracker import start_tracker


@pytest.fixture
def no_wandb(monkeypatch):
    """Nothing of W&B is left from an earlier test: no variable, no process, no trial that was taken."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    wandb.teardown()
    monkeypatch.setattr(wandb_run, "_trials", {})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # a sweep that ran in this process leaves it behind


def records(folder: Path) -> Iterator[wandb_records.Record]:
    """The records of a `.wandb` file: seven bytes, then LevelDB's log format in blocks of 32 KiB."""
    (file,) = folder.glob("*.wandb")
    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if place % 32768 > 32768 - 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
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


@pytest.fixture(name="read_back")
def _read_back():
    return read_back


@pytest.fixture(name="values")
def _values():
    return values


@pytest.fixture
def offline_runs(tmp_path):
    """`offline_runs()`: the folders in which W&B keeps the runs of `tiny_run`."""
    return lambda: sorted(tmp_path.glob("out/synthetic/*/seed*/wandb/offline-run-*"))


def assert_copied(folder: Path, run: dict, *, name: str = "", project: str = "bdlf") -> None:
    """`run` holds every value of the run folder that it lies in; `name` is its id in W&B if that is not the run's."""
    place = folder.parents[1]
    result = json.loads((place / "result.json").read_text())
    curves = pd.read_csv(place / "metrics.csv")
    assert run["exit"] == 0 and result["run_id"] == f"{place.parent.name[-8:]}-{place.name}"
    assert run["run"].run_id == (name or result["run_id"])
    assert run["run"].display_name == f"{place.parent.name[:-9]}-{place.name}"
    assert run["run"].run_group == place.parent.name and run["run"].project == project
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


@pytest.fixture(name="assert_copied")
def _assert_copied():
    return assert_copied


@pytest.fixture
def agent(tmp_path):
    """`agent(patch, **parameters)`: the environment and the file that `wandb agent` gives to the process of a trial."""

    def start(patch: pytest.MonkeyPatch, **parameters: object) -> Path:
        file = tmp_path / "config-trial1.yaml"
        values = {name: {"value": value} for name, value in parameters.items()}
        file.write_text(yaml.safe_dump({"wandb_version": 1, **values}))
        patch.chdir(tmp_path)
        said = {"SWEEP_ID": "sw33p", "RUN_ID": "trial1", "PROJECT": "theirs", "ENTITY": "them"}
        for name, value in {**said, "SWEEP_PARAM_PATH": file, "DIR": tmp_path}.items():
            patch.setenv(f"WANDB_{name}", str(value))
        return file

    return start


def synthetic() -> Config:
    """A configuration that needs no file."""
    config = Config()
    config.dataset.name, config.dataset.drawn = "synthetic", False
    return config


@pytest.fixture
def config():
    """A configuration that needs no file."""
    return synthetic()


@pytest.fixture
def facts():
    """The facts about a run without a folder."""
    return {"run_id": "0a1b2c3d-seed0", "label": "mine", "dataset": "synthetic"}


@pytest.fixture
def mirrored(facts):
    """`mirrored(folder, config)`: what the newest W&B run in `folder` holds after a run of one epoch there."""

    def track(folder: Path, config: Config | None = None, *, run_id: str = "", earlier: tuple = ()) -> dict:
        own = {**facts, "run_id": run_id or facts["run_id"]}
        tracker = start_tracker(config or synthetic(), folder, own, earlier=earlier)
        tracker.epoch({"epoch": len(earlier), "total": 0.5})
        assert tracker.active
        tracker.close()
        return read_back(max(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime_ns))

    return track


@pytest.fixture
def written(tmp_path):
    """The folder of a run that has trained one epoch, without any file of W&B."""
    place = tmp_path / "synthetic" / "mine-0a1b2c3d" / "seed0"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(synthetic())))
    (place / "metrics.csv").write_text("epoch,total\n0,0.5\n")
    return place


@pytest.fixture
def warned(caplog):
    """`warned()`: what the project itself has warned of."""
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("bdlf")]
