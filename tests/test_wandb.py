"""What W&B is given: its own offline files, read back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
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
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from bdlf.config import Config
from bdlf.runs import wandb_run
from bdlf.runs.folder import RunFolder
from bdlf.runs.tracker import rebuild, start_tracker
from bdlf.runs.wandb_run import record_run, started_run
from bdlf.training import loop

README = Path(__file__).parents[1] / "README.md"


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
def fresh(monkeypatch):
    """No W&B of an earlier test: neither its variables, nor its process, nor the trials that were given."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    wandb.teardown()
    monkeypatch.setattr(wandb_run, "_trials", {})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # of a sweep that an earlier test has run in this process


def assert_is(folder: Path, run: dict, *, name: str = "", project: str = "bdlf") -> None:
    """A W&B run holds every value of the run folder that it lies in; `name` is its id where it is not the run's."""
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


def test_runs_are_rebuilt_from_their_folders(tiny_run, tmp_path, monkeypatch):
    assert tiny_run("tracker=none")[0] == 0
    (place,) = tmp_path.glob("out/synthetic/*/seed0")
    assert rebuild(RunFolder(place))
    (folder,) = offline_runs(tmp_path)
    assert_is(folder, read_back(folder))

    shutil.rmtree(folder)
    with monkeypatch.context() as patch:  # the sweep of an agent learns what the run was worth
        agent(patch, tmp_path)
        assert tiny_run("tracker=wandb")[0] == 0
        (folder,) = offline_runs(tmp_path)
        found = read_back(folder)
        assert_is(folder, found, name="trial1", project="theirs")
        metric = re.search("name: (mAP[^,]+)", section())[1]
        assert found["run"].sweep_id == "sw33p" and metric in found["summary"]

    (place / "result.json").unlink()
    shutil.rmtree(folder)
    assert rebuild(RunFolder(place))
    (folder,) = offline_runs(tmp_path)
    unfinished = read_back(folder)
    assert unfinished["exit"] == 1 and set(unfinished["history"]) == {0, 1}
    (place / "metrics.csv").unlink()
    assert not rebuild(RunFolder(place))


def synthetic() -> Config:
    """A configuration that needs no file."""
    config = Config()
    config.dataset.name, config.dataset.drawn = "synthetic", False
    return config


def warnings(caplog) -> list[str]:
    """What the project itself has warned of."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("bdlf")]


FACTS = {"run_id": "0a1b2c3d-seed0", "label": "mine", "dataset": "synthetic"}


def agent(monkeypatch, folder: Path, trial: str = "trial1", **parameters: object) -> None:
    """The environment and the file that `wandb agent` gives to a trial's process."""
    file = folder / f"config-{trial}.yaml"
    values = {name: {"value": value} for name, value in parameters.items()}
    file.write_text(yaml.safe_dump({"wandb_version": 1, **values}))
    monkeypatch.chdir(folder)
    said = {"SWEEP_ID": "sw33p", "RUN_ID": trial, "SWEEP_PARAM_PATH": file, "PROJECT": "theirs", "ENTITY": "them"}
    for name, value in {**said, "DIR": folder}.items():
        monkeypatch.setenv(f"WANDB_{name}", str(value))


def mirrored(folder: Path, config: Config, facts: dict = FACTS, *, earlier=()) -> dict:
    """What W&B holds after a run of one epoch in `folder`, in the newest of its folders there."""
    tracker = start_tracker(config, folder, facts, earlier=earlier)
    tracker.epoch({"epoch": len(earlier), "total": 0.5})
    assert tracker.active
    tracker.close()
    return read_back(max(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime_ns))


def test_an_option_beats_the_environment_which_beats_the_default(tmp_path, monkeypatch):
    config = synthetic()
    config.seed = 3

    def described(*, resumed: bool = False) -> dict:
        return dataclasses.asdict(started_run(config, tmp_path, FACTS, resumed=resumed))

    default = described()
    assert default["name"] == "mine-seed3" and re.fullmatch("mine-[0-9a-f]{8}", default["group"])
    assert (default["id"], default["project"], default["entity"]) == (FACTS["run_id"], "bdlf", None)
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

    record_run(tmp_path, dataclasses.replace(started_run(config, tmp_path, FACTS, resumed=False), group="before"))
    monkeypatch.setenv("WANDB_NAME", "now")
    assert described(resumed=True) == {**default, "group": "before", "name": "now"}
    assert described() == {**default, "name": "now"}
    config.dataset.name, config.dataset.split = "regdb", 7
    monkeypatch.delenv("WANDB_NAME")
    config.dataset.drawn = False
    assert described()["name"] == "mine-split7-seed3"


def test_the_environment_reaches_wandb_but_its_id_does_not(tmp_path, monkeypatch):
    for name in ("NAME", "RUN_GROUP", "PROJECT", "ENTITY", "TAGS"):
        monkeypatch.setenv(f"WANDB_{name}", f"my-{name.lower()}")
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    monkeypatch.setenv("WANDB_RESUME", "must")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    tracker = start_tracker(synthetic(), tmp_path / "run", FACTS)
    tracker.epoch({"epoch": 0, "total": 0.5})
    tracker.close()
    (folder,) = tmp_path.glob("elsewhere/wandb/offline-run-*")
    run = read_back(folder)["run"]
    assert (run.run_id, run.sweep_id) == (FACTS["run_id"], "")
    assert (run.display_name, run.run_group, run.project, run.entity) == (
        "my-name",
        "my-run_group",
        "my-project",
        "my-entity",
    )
    assert list(run.tags) == ["my-tags"] and os.environ["WANDB_RUN_ID"] == "another"
    assert not list(tmp_path.glob("run/wandb/offline-run-*"))


def test_a_trial_of_an_agent_is_the_run_of_its_sweep_and_the_next_run_is_not(tmp_path, monkeypatch, caplog):
    agent(monkeypatch, tmp_path, **{"optimizer.lr": 0.3, "augment": "caj"})
    config = synthetic()
    config.tracker.project = "ours"
    first = mirrored(tmp_path / "first", config)  # not in WANDB_DIR, which the agent has set itself
    run = first["run"]
    assert (run.run_id, run.sweep_id, run.project, run.entity) == ("trial1", "sw33p", "theirs", "them")
    values_of_run = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert values_of_run["optimizer.lr"] == 0.3  # what the sweep's server looks for
    said = [message for message in warnings(caplog) if "project=ours" in message]
    assert len(said) == 1 and "theirs" in said[0]
    assert len([message for message in warnings(caplog) if "augment hides" in message]) == 1

    second = mirrored(tmp_path / "second", synthetic(), {**FACTS, "run_id": "9f9f9f9f-seed0"})["run"]
    assert (second.run_id, second.sweep_id) == ("9f9f9f9f-seed0", "")
    assert "optimizer.lr" not in {item.key for item in second.config.update}
    assert sum("several: 9f9f9f9f-seed0 is no part of the sweep sw33p" in message for message in warnings(caplog)) == 1

    for name in ("SWEEP_ID", "RUN_ID", "SWEEP_PARAM_PATH", "PROJECT", "ENTITY", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}")
    config.tracker.project = None
    later = mirrored(tmp_path / "first", config, earlier=[{"epoch": 0, "total": 0.5}])  # the shell's owner goes on
    assert (later["run"].run_id, later["run"].sweep_id, later["run"].project) == ("trial1", "sw33p", "theirs")
    assert set(later["history"]) == {0, 1}
    config.tracker.project = "ours"  # a sweep is of one project
    moved = started_run(config, tmp_path / "first", FACTS, resumed=True)
    assert (moved.id, moved.sweep, moved.project) == (FACTS["run_id"], None, "ours")


def test_jobs_of_a_sweep_below_an_agent_have_ids_of_their_own(tiny_run, tmp_path, monkeypatch):
    agent(monkeypatch, tmp_path)
    assert tiny_run("-m", "tracker=wandb", "seed=0,1", "schedule.epochs=1", "schedule.steps_per_epoch=1")[0] == 0
    logs = [file.read_text() for file in tmp_path.glob("out/synthetic/*/seed*/train.log")]
    assert [log.count("no part of the sweep sw33p") for log in logs] == [1, 1]
    runs = [read_back(folder)["run"] for folder in offline_runs(tmp_path)]
    assert sorted(run.run_id[8:] for run in runs) == ["-seed0", "-seed1"]
    assert not any(run.sweep_id for run in runs)


def test_a_rebuilt_run_has_its_recorded_id_whatever_the_environment_says(tmp_path, monkeypatch):
    place = tmp_path / "synthetic" / "mine-0a1b2c3d" / "seed0"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(synthetic())))
    (place / "metrics.csv").write_text("epoch,total\n0,0.5\n")
    agent(monkeypatch, tmp_path)
    (tmp_path / "config-trial1.yaml").unlink()
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.setenv("WANDB_NAME", "left over")
    assert rebuild(RunFolder(place))
    (folder,) = place.glob("wandb/offline-run-*")
    run = read_back(folder)["run"]
    assert re.fullmatch("[0-9a-f]{8}-seed0", run.run_id) and run.sweep_id == ""
    assert (run.display_name, run.project) == ("mine-seed0", "theirs")

    shutil.rmtree(folder)
    there = started_run(synthetic(), place, {**FACTS, "run_id": "0a1b2c3d-seed0"}, resumed=False)
    assert there.id == "trial1"
    record_run(place, there)
    monkeypatch.setenv("WANDB_RUN_ID", "trial2")
    assert rebuild(RunFolder(place))
    (folder,) = place.glob("wandb/offline-run-*")
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


def of_a_process(tiny, tmp_path, *words: str, **environment: str) -> dict:
    """Arguments of `subprocess.Popen` for a tiny run of a user who has never used W&B."""
    (tmp_path / "home").mkdir()
    words = (*tiny, f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache", "tracker=wandb", *words)
    return {
        "args": [sys.executable, "-m", "bdlf.train", *words],
        "env": {
            **os.environ,
            "HOME": str(tmp_path / "home"),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **environment,
        },
        "start_new_session": True,
    }


@pytest.mark.slow
def test_a_job_in_a_terminal_never_asks_for_a_key(tiny, tmp_path):
    terminal, theirs = os.openpty()
    call = of_a_process(tiny, tmp_path, "-m", "seed=0", "schedule.epochs=1", WANDB_MODE="online")
    process = subprocess.Popen(**call, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(terminal, 1 << 16):
                shown += part
                assert b"Enter your choice" not in shown
        assert process.wait(10) == 0, shown.decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        os.close(terminal)
    said = [line for line in shown.decode().splitlines() if "W&B" in line]
    assert len(said) == 1, said
    assert all(word in said[0] for word in ("wandb login", "WANDB_API_KEY", "WANDB_MODE=offline", "tracker=none"))
    (folder,) = offline_runs(tmp_path)
    assert_is(folder, read_back(folder))


def test_a_server_that_cannot_be_reached_is_one_line_and_the_run_goes_on_offline(tmp_path, monkeypatch, caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
        run = mirrored(tmp_path, synthetic())
        assert run["run"].run_id == FACTS["run_id"] and set(run["history"]) == {0}
        assert len(warnings(caplog)) == 1 and "WANDB_INIT_TIMEOUT" in warnings(caplog)[0], warnings(caplog)
        place = tmp_path / "synthetic" / "mine-0a1b2c3d" / "seed0"
        place.mkdir(parents=True)
        (place / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(synthetic())))
        (place / "metrics.csv").write_text("epoch,total\n0,0.5\n")
        assert not rebuild(RunFolder(place))  # asked to send, and nothing was sent


@pytest.mark.slow
def test_a_server_that_never_answers_costs_less_than_two_minutes(tiny, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        server = {"WANDB_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "WANDB_API_KEY": "0123456789" * 4}
        call = of_a_process(tiny, tmp_path, WANDB_MODE="online", **server)
        start = time.monotonic()
        done = subprocess.run(**call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and time.monotonic() - start < 120, done.stderr
    assert (done.stdout + done.stderr).count("W&B is not online") == 1 and "Traceback" not in done.stderr
    (folder,) = offline_runs(tmp_path)
    assert_is(folder, read_back(folder))


def descendants(parent: int) -> list[int]:
    """Process ids, as /proc shows them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(file.read_text().rpartition(")")[2].split()[1]) == parent:
                found += [int(file.parent.name), *descendants(int(file.parent.name))]
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_sigterm_to_every_process_leaves_no_traceback(tiny, tmp_path):
    """SLURM signals all processes of a job, W&B's too, which is in a session of its own and ends at once."""
    call = of_a_process(tiny, tmp_path, "schedule.epochs=1000", "evaluation.every=1000", WANDB_MODE="offline")
    process = subprocess.Popen(**call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(1200):  # until the second epoch has its row
            rows = [file.read_text().count("\n") for file in tmp_path.glob("out/synthetic/*/seed0/metrics.csv")]
            if rows and rows[0] > 2:
                break
            time.sleep(0.1)
        others = descendants(process.pid)
        assert any("wandb-core" in Path(f"/proc/{other}/cmdline").read_text() for other in others)
        for other in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(other, signal.SIGTERM)
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, err) == (75, "")
    assert list(tmp_path.glob("out/synthetic/*/seed0/checkpoints/last.pt"))


def section() -> str:
    return README.read_text().partition("\n## Weights & Biases\n")[2].partition("\n## ")[0]


def test_the_command_of_the_readme_finds_the_offline_runs(tmp_path):
    (command,) = re.findall(r"^wandb sync outputs.*$", section(), re.MULTILINE)
    assert f"{command.replace('sync ', 'sync --dry-run ')} " in section()
    for seed in (0, 1):
        mirrored(tmp_path / "outputs" / "synthetic" / "mine-0a1b2c3d" / f"seed{seed}", synthetic())
    words = command.replace("wandb sync", f"{sys.executable} -m wandb sync --dry-run")
    done = subprocess.run(words, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Would sync 2 run(s)" in done.stdout + done.stderr, done.stderr


def test_the_sweep_of_the_readme_starts_our_command(command, tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", section(), re.DOTALL)
    sweep = yaml.safe_load(text)
    trial = {
        name: {"value": one.get("value", one.get("values", [one.get("max")])[-1])}
        for name, one in sweep["parameters"].items()
    }
    said = {**create_sweep_command_args({"args": trial}), "env": ["/usr/bin/env"], "interpreter": ["python"]}
    said["program"] = [sweep["program"]]
    words: list[str] = []
    for word in create_sweep_command(sweep["command"]):
        words += said[word[2:-1]] if word.startswith("${") else [word]
    assert words[:4] == ["/usr/bin/env", "python", "-m", "bdlf.train"]
    code, out, err = command(
        "train", *words[4:], "dry_run=true", f"output={tmp_path}/out", f"data.cache_dir={tmp_path}"
    )
    assert code == 0 and "full" in out, err
    assert sweep["metric"]["name"].partition("/")[0] == "mAP"
