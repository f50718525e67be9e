"""One process per run, and threads that share the cores with other programs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.config import Config, config_folder
from bdlf.system import device, processes
from bdlf.system.errors import InputError
from bdlf.training import loop

ROOT = Path(__file__).parents[2]
IN_SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "night",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "n[1-2]",
}


@pytest.fixture
def config() -> Config:
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return OmegaConf.to_object(compose("config", ["devices=cpu"]))


@pytest.fixture
def alone(monkeypatch):
    """An environment in which nobody has chosen a number of threads."""
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sixteen(monkeypatch):
    """An affinity to 16 cores, and no quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(processes, "_quotas", lambda _: [])


@pytest.mark.parametrize("environment", [{}, IN_SLURM], ids=["no job", "in a job with two tasks"])
def test_a_run_is_one_process_and_silent_about_it_where_slurm_is(environment, config, tmp_path, monkeypatch, capfd):
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\nexit 1\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        device.configure_process(devices="cpu")
        fabric = device.fabric_of("cpu", "32-true")
    assert fabric.world_size == 1 and fabric.global_rank == 0 and fabric.device.type == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_one_of_several_processes_is_refused_in_one_line(words, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, err = tiny_run(*words)
    assert code == 2 and out == "" and err.count("\n") == 1 and "WORLD_SIZE=2" in err
    assert not (tmp_path / "out").exists()


def test_one_process_of_torchrun_and_the_tasks_of_slurm_are_no_several_processes():
    for environment in ({}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "a lot"}, IN_SLURM):
        processes.require_one_process(environment)
    with pytest.raises(InputError, match="16 processes"):
        processes.require_one_process({"WORLD_SIZE": "16"})


def test_what_the_user_has_said_of_waiting_threads_stays():
    for said in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}):
        environment = dict(said)
        processes.prepare_threads(environment)
        assert environment == said
    environment = {"OMP_NUM_THREADS": "3"}
    processes.prepare_threads(environment)
    assert environment == {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": str(processes.SPIN_COUNT)}


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is PyTorch's on Linux")
def test_the_spin_count_reaches_openmp_before_torch_is_imported(tiny, tmp_path):
    """OpenMP shows its settings at the moment when torch loads it."""
    unset = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    words = [*tiny, "selection=none_such", f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache"]
    done = subprocess.run(
        [sys.executable, "-m", "bdlf.train", *words],
        env={**unset, "OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "error: " in done.stderr, "refused only after torch is imported"
    assert f"GOMP_SPINCOUNT = '{processes.SPIN_COUNT}'" in done.stderr


def group(root: Path, file: str, text: str) -> None:
    path = root / "sys/fs/cgroup" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_cores_are_the_least_of_affinity_quota_and_slurms_share(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert processes.cores({}, tmp_path) == 16, "no control groups here"
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("9:memory:/m\n4:cpu,cpuacct:/job/step\n1:cpuset:/c\n0::/slice/a:b\n")
    assert processes.cores({}, tmp_path) == 16, "groups that cannot be seen"
    group(tmp_path, "slice/a:b/cpu.max", "max 100000\n")
    group(tmp_path, "memory/m/cpu.cfs_quota_us", "100000\n")
    group(tmp_path, "memory/m/cpu.cfs_period_us", "100000\n")
    assert processes.cores({}, tmp_path) == 16, "no quota"
    group(tmp_path, "slice/cpu.max", "1250000 100000\n")
    assert processes.cores({}, tmp_path) == 12, "a part of a core is no core; the quota is of a group above"
    group(tmp_path, "cpu,cpuacct/job/step/cpu.cfs_quota_us", "-1\n")
    group(tmp_path, "cpu,cpuacct/job/step/cpu.cfs_period_us", "50000\n")
    assert processes.cores({}, tmp_path) == 12
    group(tmp_path, "cpu,cpuacct/job/step/cpu.cfs_quota_us", "450000\n")
    assert processes.cores({}, tmp_path) == 9
    assert processes.cores({"SLURM_CPUS_PER_TASK": "6"}, tmp_path) == 6
    assert processes.cores({"SLURM_CPUS_PER_TASK": "32"}, tmp_path) == 9
    group(tmp_path, "cpu,cpuacct/job/step/cpu.cfs_quota_us", "20000\n")
    assert processes.cores({}, tmp_path) == 1


def test_threads_of_a_run_are_pytorchs_within_its_cores_and_the_users_before_all(config, monkeypatch, alone, sixteen):
    environment = {"SLURM_CPUS_PER_TASK": "6"}
    assert processes.default_threads(8, environment) == 6 and processes.default_threads(4, environment) == 4
    assert processes.default_threads(8, {**environment, "OMP_NUM_THREADS": "8"}) == 8
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(device, "_THREADS", 3)
        for share, threads, used in (("2", None, 2), ("5", None, 3), ("1", 2, 2)):
            monkeypatch.setenv("SLURM_CPUS_PER_TASK", share)
            device.configure_process(devices="cpu", threads=threads)
            assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("launcher", "sweeper", "words", "at_once"),
    [
        ({"_target_": "x.BasicLauncher"}, {}, ["seed=range(0,8)"], 1),
        ({"_target_": "x.SlurmLauncher"}, {}, ["seed=range(0,8)"], 1),
        ({"_target_": "x.JoblibLauncher", "n_jobs": 3}, {}, ["seed=range(0,8)", "variant=full"], 3),
        ({"_target_": "x.JoblibLauncher", "n_jobs": 8}, {}, ["seed=0,1", "+x=1,2"], 4),
        ({"_target_": "x.JoblibLauncher", "n_jobs": -1}, {}, ["seed=range(0,99)"], 16),
        ({"_target_": "x.JoblibLauncher", "n_jobs": -3}, {"max_batch_size": 20}, ["seed=range(0,99)"], 14),
        ({"_target_": "x.LocalLauncher"}, {"params": {"seed": "range(0,5)"}}, [], 5),
        ({"_target_": "x.LocalLauncher"}, {"max_batch_size": 2}, ["seed=range(0,5)"], 2),
        ({"_target_": "x.LocalLauncher"}, {"_target_": "x.OptunaSweeper", "n_jobs": 6}, ["seed=range(0,5)"], 6),
    ],
)
def test_jobs_that_a_launcher_runs_at_once_share_the_cores(launcher, sweeper, words, at_once, sixteen, alone):
    sweeper = {"_target_": "x.BasicSweeper", "params": None, "max_batch_size": None, **sweeper}
    hydra = {"launcher": launcher, "sweeper": sweeper, "overrides": {"task": words}}
    sweep = OmegaConf.create({"hydra": hydra})
    assert processes.jobs_at_once(sweep) == at_once
    environment: dict[str, str] = {}
    processes.share_cores(sweep, environment)
    assert environment == ({"OMP_NUM_THREADS": str(16 // at_once)} if at_once > 1 else {})
    processes.share_cores(sweep, said := {"OMP_NUM_THREADS": "11"})
    assert said == {"OMP_NUM_THREADS": "11"}


def test_a_sweep_shares_the_cores_before_its_launcher_starts(tiny_run, monkeypatch):
    seen = []
    monkeypatch.setattr(processes, "share_cores", lambda sweep: seen.append(processes.jobs_at_once(sweep)))
    assert tiny_run("-m", "selection=none_such,nor_this")[0] == 1 and seen == [1]


def threads(root: Path, *counts: tuple[int, int]) -> None:
    for number, (computed, waited) in enumerate(counts):
        (root / str(number)).mkdir(parents=True, exist_ok=True)
        (root / str(number) / "schedstat").write_text(f"{computed} {waited} 5\n")


def test_a_starved_run_says_so_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="bdlf")
    threads(tmp_path, (1000, 9000), (500, 9000))
    starvation = processes.Starvation(2, window=0, root=tmp_path)
    threads(tmp_path, (1600, 9100), (700, 9200))  # 800 computed, 300 waited
    assert not starvation.look() and starvation.share == pytest.approx(3 / 11)
    threads(tmp_path, (2000, 9700), (800, 9600))  # 500 and 1000
    assert starvation.look() and starvation.share == pytest.approx(2 / 3)
    threads(tmp_path, (2001, 9799), (800, 9600))
    assert starvation.look() and starvation.share == pytest.approx(0.99)
    (line,) = caplog.messages
    assert "waited 67 % for one" in line and "threads=1 may be faster than 2 threads" in line
    (tmp_path / "0" / "schedstat").unlink()  # the thread has ended
    assert not starvation.look() and not processes.Starvation(2, window=0, root=tmp_path / "none").look()


def test_a_window_that_has_not_passed_shows_nothing_new(tmp_path):
    threads(tmp_path, (0, 0))
    starvation = processes.Starvation(2, window=3600, root=tmp_path)
    threads(tmp_path, (1, 1000))
    assert not starvation.look() and starvation.share == 0


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the counts are Linux's")
def test_linux_counts_what_this_process_computes():
    before = processes._computed_and_waited(Path("/proc/self/task"))
    sum(range(300_000))
    now = processes._computed_and_waited(Path("/proc/self/task"))
    assert now[0] > before[0] and now[1] >= before[1]


def test_the_progress_line_of_a_starved_run_says_so(tiny_run, monkeypatch):
    shown = []
    monkeypatch.setattr(processes.Starvation, "look", lambda self: len(shown) >= 2)
    monkeypatch.setattr(loop.tqdm, "set_postfix_str", lambda self, text, refresh: shown.append(text))
    assert tiny_run("schedule.epochs=2", "schedule.steps_per_epoch=2")[0] == 0
    assert shown == [*["epoch 1/2"] * 2, *["epoch 2/2, waits for a processor"] * 2]
