"""Sweeps as a user runs them: real processes, broken, killed, called again."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bdlf import jobs
from bdlf.jobs import FAILED, INTERRUPTED, announce, run_apart

ROWS = ["baseline", "dfe", "dfe_app", "dfe_skd", "app_orth_skd", "dfe_app_skd", "full"]


@pytest.fixture
def sweep(tiny, tmp_path):
    """`sweep(*overrides, **environment)`: the process of a sweep of tiny runs, started in `tmp_path`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}

    def start(*overrides: str, **more: str) -> subprocess.Popen[str]:
        words = [*tiny, f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache", *overrides]
        command = [sys.executable, "-m", "bdlf.train", *words]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment | more, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return start


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def rows_of(tmp_path: Path, name: str) -> list[dict[str, str]]:
    with (tmp_path / "out" / "sweeps" / name / "jobs.csv").open() as file:
        return list(csv.DictReader(file))


def results(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("out/synthetic/*/seed0/result.json"))


def test_table2_killed_after_three_runs_only_the_others(sweep, tmp_path):
    process = sweep("sweeps=table2", "seed=0")
    while len(results(tmp_path)) < 3 and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    before = results(tmp_path)
    assert 3 <= len(before) < 7
    time.sleep(1)
    assert results(tmp_path) == before, "a job has outlived its sweep"
    written = {path: path.stat().st_mtime_ns for path in before}

    code, out, err = finish(sweep("sweeps=table2", "seed=0"))
    assert code == 0 and f"{7 - len(before)} finished, {len(before)} skipped" in out, err
    assert len(results(tmp_path)) == 7 and all(path.stat().st_mtime_ns == time for path, time in written.items())
    rows = rows_of(tmp_path, "table2")
    assert [row["overrides"].split()[0] for row in rows] == [f"variant={name}" for name in ROWS]
    for row in rows:
        result = json.loads((Path(row["folder"]) / "result.json").read_text())
        assert row["run_id"] == result["run_id"] and f"variant={result['variant']}" in row["overrides"].split()


def test_a_job_that_fails_stops_no_other_and_is_tried_again(sweep, tmp_path):
    for _ in range(2):
        code, out, err = finish(sweep("-m", "dfe.stage=1,5,2", "optimizer.lr=0.01", "schedule.epochs=1"))
        assert code == FAILED and err.count("error:") == 1 and "dfe.stage=5" in err
        assert len(results(tmp_path)) == 2
        (failed,) = [row for row in rows_of(tmp_path, "multirun") if row["state"] == "failed"]
        assert "dfe.stage=5" in failed["reason"] and failed["log"] == f"{failed['folder']}/train.log"
        assert "Traceback" in Path(failed["log"]).read_text() and failed["log"] in re.sub(r"[\s│]", "", out)
    assert "2 skipped, 1 failed" in out


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


def test_a_job_runs_apart(monkeypatch):
    monkeypatch.setattr(jobs, "_facts", {"state": "of this process"})

    def killed() -> int:
        announce(run_id="a")
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def told() -> int:
        announce(folder="there", state="skipped")
        return 0

    def broken() -> int:
        raise MemoryError

    code, facts = run_apart(killed)
    record = jobs.job_record(3, ["a=1", "b=2"], code, facts, 1.26)
    assert (record["state"], record["overrides"], record["seconds"]) == ("failed", "a=1 b=2", 1.3)
    assert "SIGKILL" in record["reason"] and "memory" in record["reason"]
    assert run_apart(told) == (0, {"folder": "there", "state": "skipped"})
    assert run_apart(broken)[0] == FAILED
    assert run_apart(lambda: INTERRUPTED)[0] == INTERRUPTED
    assert jobs._facts == {"state": "of this process"}, "what a job says stays with it"


def test_records_of_an_earlier_call_are_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("BDLF_SWEEP_CALL", "0")
    jobs.begin_call()
    jobs.keep(tmp_path, jobs.job_record(0, ["x"], 0, {}, 1))
    jobs.keep(tmp_path, jobs.job_record(1, ["y"], 1, {"reason": "why"}, 1))
    assert [record["state"] for record in jobs.kept(tmp_path)] == ["finished", "failed"]
    jobs.begin_call()
    (tmp_path / "jobs" / "7.json").write_text("half")
    jobs.keep(tmp_path, jobs.job_record(1, ["y"], 75, {}, 1))
    assert [record["state"] for record in jobs.kept(tmp_path)] == ["interrupted"]
    assert jobs.exit_code(jobs.kept(tmp_path)) == INTERRUPTED
    assert (tmp_path / "jobs.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(("seconds", "words"), [(50, "50 s"), (720, "12 min"), (12600, "3.5 h")])
def test_time_in_words(seconds, words):
    assert jobs.in_words(seconds) == words


def test_a_sweep_that_is_asked_to_stop_saves_its_job_which_nobody_else_may_write(sweep, tiny_run, tmp_path):
    arguments = ["variant=dfe", "schedule.epochs=30"]
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


def test_no_secret_of_the_environment_is_written(sweep, tmp_path):
    secrets = {"WANDB_API_KEY": "5ec2e7" + "0a" * 17, "HTTPS_PROXY": "http://user:pa55w0rd@proxy.invalid:3128"}
    process = sweep("tracker=wandb", "dfe.stage=2", WANDB_MODE="offline", UNRELATED="5ec2e7", **secrets)
    code, out, err = finish(process)
    assert code == 0 and list(tmp_path.glob("out/**/*.wandb")), err
    written = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} | {"out": out.encode()}
    assert not [path for path, text in written.items() if b"5ec2e7" in text or b"pa55w0rd" in text]
