"""What a run is called in W&B, and who decides it: an option, the environment, an agent, or the run folder."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil

import pytest

from bdlf.runs.folder import RunFolder
from bdlf.runs.tracker import rebuild, start_tracker
from bdlf.runs.wandb_run import record_run, started_run

pytestmark = pytest.mark.usefixtures("no_wandb")


def test_an_option_beats_the_environment_which_beats_the_default(config, facts, tmp_path, monkeypatch):
    config.seed = 3

    def described(*, resumed: bool = False) -> dict:
        return dataclasses.asdict(started_run(config, tmp_path, facts, resumed=resumed))

    default = described()
    assert default["name"] == "mine-seed3" and re.fullmatch("mine-[0-9a-f]{8}", default["group"])
    assert (default["id"], default["project"], default["entity"]) == (facts["run_id"], "bdlf", None)
    variables = {"name": "NAME", "group": "RUN_GROUP", "project": "PROJECT", "entity": "ENTITY", "tags": "TAGS"}
    for key, variable in variables.items():
        said = ["paper", "second try"] if key == "tags" else f"my {key}"
        with monkeypatch.context() as patch:
            patch.setenv(f"WANDB_{variable}", "paper, second try," if key == "tags" else f"my {key}")
            assert described() == {**default, key: said}
            if key in ("project", "entity"):
                setattr(config.tracker, key, "asked")
                assert described() == {**default, key: "asked"}
                setattr(config.tracker, key, None)
            patch.setenv(f"WANDB_{variable}", "")
            assert described() == default
    monkeypatch.setenv("WANDB_RUN_ID", "another")  # without a sweep, too
    assert described() == default

    record_run(tmp_path, dataclasses.replace(started_run(config, tmp_path, facts, resumed=False), group="before"))
    monkeypatch.setenv("WANDB_NAME", "now")
    assert described(resumed=True) == {**default, "group": "before", "name": "now"}
    assert described() == {**default, "name": "now"}
    config.dataset.name, config.dataset.split = "regdb", 7
    monkeypatch.delenv("WANDB_NAME")
    config.dataset.drawn = False
    assert described()["name"] == "mine-split7-seed3"


def test_the_environment_reaches_wandb_but_its_id_does_not(config, facts, read_back, tmp_path, monkeypatch):
    for name in ("NAME", "RUN_GROUP", "PROJECT", "ENTITY", "TAGS"):
        monkeypatch.setenv(f"WANDB_{name}", f"my-{name.lower()}")
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    monkeypatch.setenv("WANDB_RESUME", "must")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    tracker = start_tracker(config, tmp_path / "run", facts)
    tracker.epoch({"epoch": 0, "total": 0.5})
    tracker.close()
    (folder,) = tmp_path.glob("elsewhere/wandb/offline-run-*")
    run = read_back(folder)["run"]
    assert (run.run_id, run.sweep_id) == (facts["run_id"], "")
    assert (run.display_name, run.run_group, run.project, run.entity) == (
        "my-name",
        "my-run_group",
        "my-project",
        "my-entity",
    )
    assert list(run.tags) == ["my-tags"] and os.environ["WANDB_RUN_ID"] == "another"
    assert not list(tmp_path.glob("run/wandb/offline-run-*"))


def test_a_trial_of_an_agent_is_the_run_of_its_sweep_and_the_next_run_is_not(
    agent, config, facts, mirrored, values, warned, tmp_path, monkeypatch
):
    agent(monkeypatch, **{"optimizer.lr": 0.3, "augment": "caj"})
    config.tracker.project = "ours"
    first = mirrored(tmp_path / "first", config)  # not in WANDB_DIR, which the agent has set itself
    run = first["run"]
    assert (run.run_id, run.sweep_id, run.project, run.entity) == ("trial1", "sw33p", "theirs", "them")
    assert values(run.config.update)["optimizer.lr"] == 0.3  # what the sweep's server looks for
    said = [message for message in warned() if "project=ours" in message]
    assert len(said) == 1 and "theirs" in said[0]
    assert len([message for message in warned() if "augment hides" in message]) == 1

    second = mirrored(tmp_path / "second", run_id="9f9f9f9f-seed0")["run"]
    assert (second.run_id, second.sweep_id) == ("9f9f9f9f-seed0", "")
    assert "optimizer.lr" not in {item.key for item in second.config.update}
    assert sum("several: 9f9f9f9f-seed0 is no part of the sweep sw33p" in message for message in warned()) == 1

    for name in ("SWEEP_ID", "RUN_ID", "SWEEP_PARAM_PATH", "PROJECT", "ENTITY", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}")
    config.tracker.project = None
    later = mirrored(tmp_path / "first", config, earlier=({"epoch": 0, "total": 0.5},))  # the shell's owner goes on
    assert (later["run"].run_id, later["run"].sweep_id, later["run"].project) == ("trial1", "sw33p", "theirs")
    assert set(later["history"]) == {0, 1}
    config.tracker.project = "ours"  # a sweep is of one project
    moved = started_run(config, tmp_path / "first", facts, resumed=True)
    assert (moved.id, moved.sweep, moved.project) == (facts["run_id"], None, "ours")


def test_the_first_job_of_a_sweep_below_an_agent_is_not_the_trial(
    tiny_run, folder_of, agent, offline_runs, read_back, monkeypatch
):
    agent(monkeypatch)
    assert tiny_run("-m", "tracker=wandb", "seed=0", "schedule.epochs=1", "schedule.steps_per_epoch=1")[0] == 0
    assert (folder_of() / "train.log").read_text().count("no part of the sweep sw33p") == 1
    (folder,) = offline_runs()
    run = read_back(folder)["run"]
    assert run.run_id[8:] == "-seed0" and not run.sweep_id


def test_a_rebuilt_run_has_its_recorded_id_whatever_the_environment_says(
    agent, config, facts, read_back, written, monkeypatch
):
    agent(monkeypatch).unlink()
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.setenv("WANDB_NAME", "left over")
    assert rebuild(RunFolder(written))
    (folder,) = written.glob("wandb/offline-run-*")
    run = read_back(folder)["run"]
    assert re.fullmatch("[0-9a-f]{8}-seed0", run.run_id) and run.sweep_id == ""
    assert (run.display_name, run.project) == ("mine-seed0", "theirs")

    shutil.rmtree(folder)
    there = started_run(config, written, facts, resumed=False)
    assert there.id == "trial1"
    record_run(written, there)
    monkeypatch.setenv("WANDB_RUN_ID", "trial2")
    assert rebuild(RunFolder(written))
    (folder,) = written.glob("wandb/offline-run-*")
    again = read_back(folder)["run"]
    assert (again.run_id, again.sweep_id, again.project) == ("trial1", "sw33p", "theirs")


def test_a_misspelt_mode_is_refused_before_training(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    code, _, err = tiny_run("tracker=wandb")
    assert code == 2 and err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert "WANDB_MODE=onlin" in err and all(mode in err for mode in ("online", "offline", "disabled"))
    monkeypatch.setenv("WANDB_MODE", "")
    assert tiny_run("tracker=wandb", "dry_run=true")[0] == 0
    monkeypatch.setenv("WANDB_MODE", "onlin")
    assert tiny_run("tracker=none", "dry_run=true")[0] == 0
