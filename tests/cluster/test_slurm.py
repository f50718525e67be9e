"""Runs as jobs of a real SLURM, which the script beside this file sets up and takes down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "sweeps" / "slurm" / "job.sh"
PATIENCE = 600  # seconds
LONG = 1500  # epochs: a minute or two, more than SLURM takes to send its signal


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    """A cluster of this machine, with the partitions `low` and `high`: jobs of `high` preempt those of `low`."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("installing SLURM needs Debian's apt-get and root")
    if shutil.which("srun") is not None:
        pytest.skip("a SLURM is installed here, and these tests set up one of their own")
    script = str(Path(__file__).parent / "slurm.sh")
    try:
        set_up = subprocess.run([script, "up"], capture_output=True, text=True)
        if set_up.returncode != 0:
            pytest.skip(f"SLURM cannot be set up here: {set_up.stderr[-2000:]}")
        yield
    finally:
        subprocess.run([script, "down"], capture_output=True)


@pytest.fixture
def submit(tiny, tmp_path) -> Iterator[Callable[..., str]]:
    """`submit(sbatch_options, *overrides)`: the number of a job that runs the script of the README's cluster page."""
    jobs = []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}

    def start(options: list[str], *overrides: str) -> str:
        words = [*tiny, f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache", *overrides]
        command = ["sbatch", "--parsable", "--cpus-per-task=1", f"--output={tmp_path}/%j.txt", *options]
        done = subprocess.run([*command, str(SCRIPT), *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        jobs.append(done.stdout.strip())
        return jobs[-1]

    yield start
    subprocess.run(["scancel", "--full", *jobs])


def states(job: str) -> list[str]:
    """Of the job, or of every task of an array."""
    return subprocess.run(
        ["squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%T"], capture_output=True, text=True
    ).stdout.split()


def wait_until(is_so: Callable[[], object], tmp_path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until, [path.read_text() for path in tmp_path.glob("*.txt")]
        time.sleep(0.5)


def starts(tmp_path: Path, seed: int) -> list[str]:
    """The lines of the run's log with which a process began or ended, without their time."""
    (log,) = tmp_path.glob(f"out/synthetic/*/seed{seed}/train.log")
    lines = [line.split(" ", 3)[3] for line in log.read_text().splitlines()]
    return [line for line in lines if line.startswith(("run ", "going on", "interrupted"))]


def update(job: str, what: str) -> None:
    subprocess.run(["scontrol", "update", f"JobId={job}", what], check=True)


def requeued(job: str, tmp_path: Path) -> None:
    """Wait until the job is queued again, and let it start soon instead of in two minutes."""
    wait_until(lambda: states(job) == ["PENDING"], tmp_path)
    time.sleep(5)  # at once, SLURM finds it "non-startable: job credential revoked"
    update(job, "StartTime=now")


def trained(tmp_path: Path, seed: int) -> bool:
    return bool(list(tmp_path.glob(f"out/synthetic/*/seed{seed}/metrics.csv")))


def finished(tmp_path: Path) -> list[str]:
    return sorted(path.parent.name for path in tmp_path.glob("out/synthetic/*/seed*/result.json"))


def test_an_array_job_trains_a_seed_in_each_task(submit, tmp_path):
    job = submit(["--array=0-2"])
    wait_until(lambda: states(job) == ["COMPLETED"] * 3, tmp_path)
    assert finished(tmp_path) == ["seed0", "seed1", "seed2"]
    for path in tmp_path.glob("*.txt"):
        text = path.read_text()
        assert "Lightning" not in text and "srun" not in text and "Traceback" not in text, text


def test_a_time_out_saves_and_the_job_goes_on_in_the_same_folder(submit, tmp_path):
    job = submit(["--time=30", "--signal=USR1@60"], "seed=4", f"schedule.epochs={LONG}")
    wait_until(lambda: trained(tmp_path, 4), tmp_path)
    update(job, "TimeLimit=1")
    wait_until(lambda: states(job) == ["PENDING"], tmp_path)
    update(job, "TimeLimit=30")
    requeued(job, tmp_path)
    wait_until(lambda: states(job) == ["COMPLETED"], tmp_path)
    assert finished(tmp_path) == ["seed4"]
    first, interrupted, second, going_on = starts(tmp_path, 4)
    assert first == second and interrupted == "interrupted by SIGUSR1" and going_on.startswith("going on at epoch")
    (rows,) = tmp_path.glob("out/synthetic/*/seed4/metrics.csv")
    assert [int(row.split(",")[0]) for row in rows.read_text().splitlines()[1:]] == list(range(LONG))


def test_a_preempted_job_saves_and_goes_on_in_the_same_folder(submit, tmp_path):
    job = submit(["--partition=low", "--cpus-per-task=2"], "seed=5", f"schedule.epochs={LONG}")
    wait_until(lambda: trained(tmp_path, 5), tmp_path)
    urgent = submit(["--partition=high", "--cpus-per-task=2"], "seed=6")
    requeued(job, tmp_path)
    wait_until(lambda: states(urgent) == states(job) == ["COMPLETED"], tmp_path)
    assert finished(tmp_path) == ["seed5", "seed6"]
    first, interrupted, second, going_on = starts(tmp_path, 5)
    assert first == second and interrupted == "interrupted by SIGTERM" and going_on.startswith("going on at epoch")
    (result,) = tmp_path.glob("out/synthetic/*/seed5/result.json")
    assert json.loads(result.read_text())["epochs"] == LONG


def test_a_cancelled_job_stays_cancelled(submit, tmp_path):
    job = submit([], "seed=7", "schedule.epochs=100000")
    wait_until(lambda: trained(tmp_path, 7), tmp_path)
    subprocess.run(["scancel", job], check=True)
    wait_until(lambda: states(job) == ["CANCELLED"], tmp_path)
    time.sleep(5)
    assert states(job) == ["CANCELLED"] and starts(tmp_path, 7)[-1] == "interrupted by SIGTERM"
