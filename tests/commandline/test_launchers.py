"""Sweeps under Hydra's other launchers and sweepers: the same table and exit code as with its own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
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


@pytest.fixture
def sweep(tiny, tmp_path):
    """`sweep(place, plugin, *words)`: exit code, standard output and error of a sweep below `tmp_path/place`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

    def run(place: str, plugin: str, *words: str) -> tuple[int, str, str]:
        own = [f"output={tmp_path}/{place}", f"data.cache_dir={tmp_path}/cache", *PLUGINS[plugin]]
        command = [sys.executable, "-m", "bdlf.train", "-m", *tiny, "schedule.epochs=1", *own, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=500)
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
