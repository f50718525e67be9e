"""Sweeps under Hydra's other launchers and sweepers: the same table and exit code as with its own."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

for plugin in ("hydra_joblib_launcher", "hydra_submitit_launcher", "hydra_optuna_sweeper"):
    pytest.importorskip(f"hydra_plugins.{plugin}", reason="the extra bdlf[launchers] is not installed")

OPTUNA = (
    *("hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0"),  # both of two values
    *("hydra.sweeper.n_trials=2", "hydra.sweeper.max_failure_rate=1"),
)
PLUGINS = {
    "serial": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local",),
    "optuna": (*OPTUNA, "hydra.sweeper.n_jobs=2"),
    "optuna and joblib": (*OPTUNA, "hydra.sweeper.n_jobs=2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
}
SHOWN = ("state", "run_id", "objective", "reason")


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def sweep(tiny, tmp_path):
    """`sweep(place, plugin, *words)`: exit code, standard output and error of a sweep below `tmp_path/place`."""

    def run(place: str, plugin: str, *words: str) -> tuple[int, str, str]:
        own = [f"output={tmp_path}/{place}", f"data.cache_dir={tmp_path}/cache", *PLUGINS[plugin]]
        command = [sys.executable, "-m", "bdlf.train", "-m", *tiny, "schedule.epochs=1", *own, *words]
        done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, text=True, capture_output=True, timeout=500)
        return done.returncode, done.stdout, done.stderr

    return run


def rows(table: Path) -> list[dict[str, str]]:
    """What does not depend on the place and the time, by run; Optuna chooses the order."""
    with table.open() as file:
        return sorted(({name: row[name] for name in SHOWN} for row in csv.DictReader(file)), key=lambda r: r["run_id"])


@pytest.mark.slow
def test_joblib_tells_of_a_finished_and_a_failed_job_wherever_the_records_go(sweep, tiny_run, tmp_path):
    assert tiny_run("schedule.epochs=1", "optimizer.lr=0.01")[0] == 0
    place = f"hydra.sweep.dir={tmp_path}/records/${{now:%f}}"
    code, out, err = sweep("out", "joblib", place, "optimizer.lr=0.01,1e30")
    assert code == 1 and "1 skipped, 1 failed" in out and "NonFiniteError" in out, err
    assert "leaked semaphore" not in err
    (table,) = (tmp_path / "records").glob("*/jobs.csv")
    failed, skipped = sorted(rows(table), key=lambda row: row["state"])
    assert (failed["state"], failed["objective"], skipped["state"]) == ("failed", "", "skipped")
    assert float(skipped["objective"]) > 1 and "NonFiniteError" in failed["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("plugin", [name for name in PLUGINS if name != "serial"])
def test_every_plugin_has_the_table_and_the_exit_code_of_the_serial_launcher(sweep, tmp_path, plugin):
    two = "optimizer.lr=choice(0.01,0.02)"
    one_fails = "optimizer.lr=choice(0.01,1e30)"
    for words, counts, code in [
        ((two, "dry_run=true"), "2 would run", 0),
        ((two,), "2 finished", 0),
        ((one_fails,), "1 skipped, 1 failed", 1),
    ]:
        for place, name in (("serial", "serial"), ("other", plugin)):
            found, out, err = sweep(place, name, *words)
            assert found == code and counts in out and "Traceback" not in err, (name, words, err)
            assert ("in all, one after the other" in out) == ("dry_run=true" in words)
    tables = [tmp_path / place / "sweeps" / "multirun" / "jobs.csv" for place in ("serial", "other")]
    assert rows(tables[0]) == rows(tables[1]) and len(rows(tables[0])) == 3


@pytest.fixture
def long_sweep(tiny, tmp_path):
    """`long_sweep(plugin)`: the process of a sweep of three long jobs, in a session of its own; two of them train."""
    started = []

    def start(plugin: str) -> subprocess.Popen[str]:
        own = [f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache", *PLUGINS[plugin]]
        words = [*tiny, "schedule.epochs=3000", "seed=3,4,5" if plugin == "joblib" else "seed=3,4", *own]
        process = subprocess.Popen(
            [sys.executable, "-m", "bdlf.train", "-m", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        started.append(process)
        while len([*tmp_path.glob("out/synthetic/*/seed*/metrics.csv")]) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        return process

    yield start
    for process in started:
        process.kill()  # the processes that a launcher left in other groups end too, after SIGTERM


def works_below(folder: Path) -> list[str]:
    """The command lines of all processes that name `folder`, as those of submitit do.

    Those of joblib do not; but they hold the output of the command, whose end `end_of` waits for.
    """
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


def end_of(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


@pytest.mark.slow
@pytest.mark.parametrize("plugin", ["joblib", "submitit_local"])
@pytest.mark.parametrize(
    ("name", "to_group"), [("SIGTERM", False), ("SIGHUP", True), ("SIGUSR2", True), ("SIGINT", True)]
)
def test_a_signal_to_the_command_stops_the_jobs_of_a_launcher_which_save_and_go_on(
    long_sweep, tmp_path, plugin, name, to_group
):
    process = long_sweep(plugin)
    (os.killpg if to_group else os.kill)(process.pid, getattr(signal, name))
    code, out, err = end_of(process)
    assert code == 75 and "2 interrupted\n" in out and f"stopped by {name}: the same command goes on" in out, err
    assert "Traceback" not in err and not works_below(tmp_path)
    found = rows(tmp_path / "out" / "sweeps" / "multirun" / "jobs.csv")
    assert [row["state"] for row in found] == ["interrupted"] * 2, "and the third has not begun"
    for log in tmp_path.glob("out/synthetic/*/seed*/train.log"):
        assert log.read_text().count(f"interrupted by {name}") == 1
        assert (log.parent / "checkpoints" / "last.pt").is_file()


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_jobs_of_a_launcher_at_once(long_sweep, tmp_path):
    process = long_sweep("joblib")
    process.send_signal(signal.SIGINT)
    assert re.match("SIGINT: waiting until the jobs have saved", process.stderr.readline())
    process.send_signal(signal.SIGINT)
    code, _, _ = end_of(process)
    assert code in (75, 130) and not works_below(tmp_path)  # 75: they had saved before the second one came


@pytest.mark.slow
def test_the_jobs_of_a_launcher_save_when_the_command_is_killed(long_sweep, tmp_path):
    process = long_sweep("joblib")
    process.kill()
    process.communicate(timeout=60)  # all processes that hold its output have ended
    logs = [log.read_text() for log in tmp_path.glob("out/synthetic/*/seed*/train.log")]
    assert len(logs) == 2 and all("interrupted by SIGTERM" in log for log in logs)
