"""Sweeps as a user runs them, in real processes that fail, are killed and are called again."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bdlf.commandline.jobs import FAILED, INTERRUPTED
from bdlf.commandline.sweep_records import JobRecord, keep

ROWS = ["baseline", "dfe", "dfe_app", "dfe_skd", "app_orth_skd", "dfe_app_skd", "full"]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def words(tiny, tmp_path):
    """The words of every command, which puts all that it writes below `tmp_path`."""
    return [*tiny, f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache"]


@pytest.fixture
def sweep(start_python, words, tmp_path):
    """`sweep(*overrides, **environment)`: the process of a sweep of tiny runs, started in `tmp_path`."""
    started = []

    def start(*overrides: str, **more: str):
        command = ["-m", "bdlf.train", *words, *overrides]
        process = start_python(*command, place=tmp_path, environment=ENVIRONMENT | more)
        started.append(process)
        return process

    yield start
    for process in started:  # of a test that failed
        process.kill()


def finish(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.poll(), out, err


def rows_of(tmp_path: Path, name: str) -> list[dict[str, str]]:
    with (tmp_path / "out" / "sweeps" / name / "jobs.csv").open() as file:
        return list(csv.DictReader(file))


def records_of(tmp_path: Path, name: str, job: int) -> list[dict[str, Any]]:
    """The records of the jobs of this number, by call."""
    paths = sorted((tmp_path / "out" / "sweeps" / name / "calls").glob(f"*/jobs/{job}.json"))
    return [json.loads(path.read_text()) for path in paths]


def wait_until(is_so: Callable[[], object], process) -> None:
    while not is_so():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def results(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("out/synthetic/*/seed0/result.json"))


@pytest.mark.slow
def test_table2_killed_after_three_runs_only_the_others(sweep, tmp_path):
    table2 = ["sweeps=table2", "seed=0", "schedule.epochs=1", "schedule.steps_per_epoch=1"]
    process = sweep(*table2)
    while len(results(tmp_path)) < 3 and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    before = results(tmp_path)
    assert 3 <= len(before) < 7
    time.sleep(1)
    assert results(tmp_path) == before, "a job has outlived its sweep"
    written = {path: path.stat().st_mtime_ns for path in before}

    code, out, err = finish(sweep(*table2))
    assert code == 0 and f"{7 - len(before)} finished, {len(before)} skipped" in out, err
    assert len(results(tmp_path)) == 7 and all(path.stat().st_mtime_ns == time for path, time in written.items())
    rows = rows_of(tmp_path, "table2")
    assert [row["overrides"].split()[0] for row in rows] == [f"variant={name}" for name in ROWS]
    for row in rows:
        result = json.loads((Path(row["folder"]) / "result.json").read_text())
        assert row["run_id"] == result["run_id"] and f"variant={result['variant']}" in row["overrides"].split()


def test_a_job_that_fails_stops_no_other_and_is_tried_again(sweep, tmp_path):
    for rates, states in (("0.01,1e30,0.02", "2 finished, 1 failed"), ("1e30,0.02", "1 skipped, 1 failed")):
        code, out, err = finish(sweep("-m", f"optimizer.lr={rates}", "schedule.epochs=1"))
        assert code == FAILED and err.count("error:") == 1 and "NonFiniteError" in err and states in out
        assert len(results(tmp_path)) == 2
        first, failed, last = rows_of(tmp_path, "multirun")
        assert failed["state"] == "failed" and "NonFiniteError" in failed["reason"]
        assert failed["log"] == f"{failed['folder']}/train.log" and failed["log"] in re.sub(r"[\s│]", "", out)
        assert "Traceback" in Path(failed["log"]).read_text()
    assert (first["state"], last["state"]) == ("finished", "skipped")
    assert first["call"] < failed["call"] == last["call"], "a smaller call leaves the rows of the other jobs"


def test_a_wrong_value_leaves_no_run_folder(tiny_run, tmp_path):
    code, out, err = tiny_run("-m", "dfe.stage=5")
    assert code == FAILED and err.count("error:") == 0, "the job's own process says it"
    (row,) = rows_of(tmp_path, "multirun")
    assert row["state"] == "failed" and "dfe.stage=5" in row["reason"] and row["log"] == ""
    assert not list(tmp_path.glob("out/synthetic/*/*")), out


def test_a_sweep_killed_with_its_jobs_leaves_where_they_were(sweep, tmp_path):
    process = sweep("-m", "seed=0,1", "schedule.epochs=400")
    wait_until(lambda: any(record["run_id"] for record in records_of(tmp_path, "multirun", 0)), process)
    process.kill()  # which ends the job too
    finish(process)
    (record,) = records_of(tmp_path, "multirun", 0)
    assert record["state"] == "running" and record["pid"] == process.pid and "seed=0" in record["overrides"].split()
    assert re.fullmatch(r"[0-9a-f]{8}-seed0", record["run_id"]) and record["run_id"][:8] in record["folder"]
    assert record["log"] == f"{record['folder']}/train.log"
    here = {"pid": os.getpid(), "host": record["host"], "written": record["written"]}
    keep(tmp_path / "out" / "sweeps" / "multirun", JobRecord("later", 0, "finished", "seed=7", **here))
    lost, other = rows_of(tmp_path, "multirun")
    assert lost["state"] == "lost" and lost["run_id"] == record["run_id"] and lost["log"] == record["log"]
    assert f"process {process.pid}" in lost["reason"] and other["overrides"] == "seed=7"


LAUNCHER = """
import os, pickle, time
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, run_job
from hydra.plugins.launcher import Launcher

ConfigStore.instance().store(
    group="hydra/launcher", name="forked", node={"_target_": "hydra_plugins.forked.Forked"}, provider="test"
)


class Forked(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        results = []
        if Path("no-jobs").exists():
            return []
        for number, overrides in enumerate(job_overrides):
            while number > 0 and not Path("go").exists():
                time.sleep(0.02)
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            config.hydra.job.num = number
            config.hydra.job.id = str(number)
            if os.fork() == 0:
                try:
                    result = run_job(
                        task_function=self.task_function, config=config, job_dir_key="hydra.sweep.dir",
                        job_subdir_key="hydra.sweep.subdir", hydra_context=self.context,
                    )
                    Path(f"result{number}").write_bytes(pickle.dumps((result.status, result._return_value)))
                finally:
                    os._exit(0)
            os.wait()
            if Path(f"result{number}").exists():
                status, value = pickle.loads(Path(f"result{number}").read_bytes())
                results.append(JobReturn(status=status, _return_value=value))
        return results
"""
"""Runs each job in another process, as joblib and submitit do. The first job starts at once, the others when the file
`go` exists."""


@pytest.fixture
def launched(sweep, tmp_path):
    """As `sweep`, with the launcher `LAUNCHER`."""
    plugin = tmp_path / "plugins" / "hydra_plugins" / "forked.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(LAUNCHER)
    places = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path / "plugins")])
    return lambda *overrides: sweep("-m", "hydra/launcher=forked", *overrides, PYTHONPATH=places)


def test_calls_under_one_name_that_overlap_lose_no_job_of_another_launcher(sweep, launched, tmp_path):
    first = launched("optimizer.lr=1e30,0.01", "schedule.epochs=400")
    table = tmp_path / "out" / "sweeps" / "multirun" / "jobs.csv"
    wait_until(lambda: table.is_file() and "failed" in table.read_text(), first)
    code, out, err = finish(sweep("-m", "dfe.stage=2", "schedule.epochs=1"))
    assert code == 0 and "1 finished\n" in out, err
    (tmp_path / "go").touch()
    wait_until(lambda: any(record["run_id"] for record in records_of(tmp_path, "multirun", 1)), first)
    (running,) = records_of(tmp_path, "multirun", 1)
    assert running["pid"] != first.pid
    os.kill(running["pid"], signal.SIGKILL)
    code, out, err = finish(first)
    assert code == FAILED and "2 failed\n" in out, err
    assert "NonFiniteError" in out and "without word from this job" in out and "dfe.stage=2" not in out
    rows = rows_of(tmp_path, "multirun")
    assert [(row["job"], row["state"]) for row in rows] == [("0", "failed"), ("1", "failed"), ("0", "finished")]
    killed = rows[1]
    assert (killed["run_id"], killed["folder"], killed["log"]) == tuple(
        running[name] for name in ("run_id", "folder", "log")
    )


@pytest.mark.slow
def test_a_dry_run_of_another_launcher_lists_its_jobs_and_the_time(launched, tmp_path):
    (tmp_path / "go").touch()
    code, out, err = finish(launched("dfe.stage=2,7", "dry_run=true"))
    assert code == FAILED and "error: dfe.stage=7" in err, err
    assert "1 would run, 1 failed" in out and "in all, one after the other" in out and "dfe.stage=7 is not" in out
    left = {path.relative_to(tmp_path / "out" / "sweeps").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert left == {"multirun/multirun.yaml"}, "but what Hydra leaves"


@pytest.mark.slow
def test_another_launcher_records_where_the_composed_configuration_says(launched, tmp_path):
    """An own file, `++` and a time decide it: words alone do not tell."""
    (tmp_path / "go").touch()
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nsweep: mine\nhydra: {sweep: {dir: '${output}/at/${sweep}/${now:%f}'}}\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    words = [f"++output={tmp_path}/plus", "optimizer.lr=1e30,1e31"]
    code, out, err = finish(launched(f"--config-dir={tmp_path}/own", "+experiment=mine", *words))
    assert code == FAILED and "2 failed\n" in out, err
    (table,) = (tmp_path / "plus" / "at" / "mine").glob("*/jobs.csv")
    assert re.fullmatch(r"\d{6}", table.parent.name)
    with table.open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["failed", "failed"]
    assert not (tmp_path / "out").exists()


def test_a_launcher_whose_jobs_leave_no_word_is_an_error(launched, tmp_path):
    (tmp_path / "no-jobs").touch()
    code, out, err = finish(launched("seed=0,1", "hydra.sweep.dir=gone"))
    assert code == FAILED and err == "error: no job has left a record in gone\n" and not out


def test_dry_run_of_a_sweep_names_every_job_and_the_time_and_leaves_no_run(sweep, tmp_path):
    code, out, err = finish(
        sweep(
            "-m",
            "dfe/stage=stage2,stage3",
            "loss/skd=on,off",
            "loss.orth.weight=0.5",
            "variant=dfe_app",
            "dry_run=true",
        )
    )
    assert code == 0, err
    assert out.count("dry run: starts in") == 4 and "orth x 0.5" not in out and out.count("skd x 1") == 2
    assert "4 would run" in out and "in all, one after the other" in out
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {"multirun.yaml"}, "but what Hydra leaves"


def test_a_sweep_that_is_asked_to_stop_saves_its_job_which_nobody_else_may_write(sweep, tiny_run, tmp_path):
    arguments = ["variant=dfe", "schedule.epochs=40"]
    process = sweep("-m", "seed=0,1", *arguments)
    while not list(tmp_path.glob("out/synthetic/*/seed0/metrics.csv")) and process.poll() is None:
        time.sleep(0.02)
    code, _, err = tiny_run(*arguments)
    assert code == INTERRUPTED and err.count("\n") == 1, err
    assert re.search(r"seed0 is being written by process \d+ on \S+ since 2\d{3}-", err)
    process.send_signal(signal.SIGUSR1)
    code, out, err = finish(process)
    assert code == INTERRUPTED and "Traceback" not in err
    assert [row["state"] for row in rows_of(tmp_path, "multirun")] == ["interrupted"], out
    assert list(tmp_path.glob("out/synthetic/*/seed0/checkpoints/last.pt")) and not results(tmp_path)
    code, out, _ = tiny_run(*arguments)
    assert code == 0 and "going on at epoch" in out and len(results(tmp_path)) == 1


def test_no_secret_of_the_environment_is_written(words, tmp_path):
    secrets = {"WANDB_API_KEY": "5ec2e7" + "0a" * 17, "HTTPS_PROXY": "http://user:pa55w0rd@proxy.invalid:3128"}
    environment = ENVIRONMENT | secrets | {"WANDB_MODE": "offline", "UNRELATED": "5ec2e7"}
    command = [sys.executable, "-m", "bdlf.train", *words, "tracker=wandb", "schedule.epochs=1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and list(tmp_path.glob("out/**/*.wandb")), done.stderr
    written = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written["out"] = (done.stdout + done.stderr).encode()
    assert not [path for path, text in written.items() if b"5ec2e7" in text or b"pa55w0rd" in text]
