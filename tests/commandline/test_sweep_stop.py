"""A signal to the command that runs a sweep in other processes: what the jobs are told, and when the command ends."""

from __future__ import annotations

import os
import signal
import time

import pytest
from omegaconf import OmegaConf

from bdlf.commandline.interruption import Interrupted, Interruption
from bdlf.commandline.jobs import INTERRUPTED, STOPPED, announce, run_apart
from bdlf.commandline.sweep_records import JobRecord, end_call, keep, run_job, still_running
from bdlf.commandline.sweep_stop import SweepStop, is_watched, signals_asked


def test_the_jobs_are_told_and_the_command_waits_until_they_have_ended(tmp_path, capfd):
    looks = []

    def running() -> bool:
        looks.append(signals_asked(tmp_path, "a"))
        if len(looks) == 2:
            signal.raise_signal(signal.SIGTERM)  # is told, and does not wait once more
        return len(looks) < 3

    stop, before = SweepStop(tmp_path, "a", running), signal.getsignal(signal.SIGHUP)
    assert signals_asked(tmp_path, "a") == []
    with stop.listening(), pytest.raises(SystemExit) as left:
        signal.raise_signal(signal.SIGHUP)
    assert left.value.code == INTERRUPTED and len(looks) == 3 and signal.getsignal(signal.SIGHUP) is before
    assert looks[0] == [signal.SIGHUP] and looks[2] == [signal.SIGHUP, signal.SIGTERM]
    assert signals_asked(tmp_path, "b") == [], "another call of the same sweep"
    assert capfd.readouterr().err == "SIGHUP: waiting until the jobs have saved; a second Ctrl-C ends them at once\n"


def test_a_second_ctrl_c_ends_the_command_with_130_and_a_full_disk_is_told(tmp_path, capfd):
    (tmp_path / "calls").touch()  # nothing can be written below
    stop = SweepStop(tmp_path, "a", lambda: len(stop.received) < 2 and signal.raise_signal(signal.SIGINT) is None)
    with stop.listening(), pytest.raises(SystemExit) as left:
        signal.raise_signal(signal.SIGINT)
    assert left.value.code == STOPPED and capfd.readouterr().err.count("the jobs cannot be told to stop: ") == 2


@pytest.mark.parametrize(
    ("received", "asked", "code"),
    [
        ([], [signal.SIGINT], INTERRUPTED),
        ([signal.SIGINT], [signal.SIGINT], INTERRUPTED),  # Ctrl-C in a terminal arrives both ways, and is one
        ([], [signal.SIGINT] * 2, STOPPED),
        ([], [signal.SIGTERM] * 2, INTERRUPTED),
    ],
)
def test_a_job_gets_each_signal_once_by_whichever_way_it_comes(received, asked, code):
    def work() -> int:
        with Interruption():
            try:
                announce(run_id="works")
                time.sleep(60)
            except Interrupted:
                time.sleep(1.2)  # it saves
        return INTERRUPTED

    heard, looks = [], []

    def hear(facts) -> None:
        heard.append(facts)
        for number in received:
            os.kill(os.getpid(), number)

    def asked_so_far():
        looks.extend(heard)
        return asked[: len(looks)]

    assert run_apart(work, hear, asked_so_far)[0] == code


def test_a_job_that_has_a_record_hears_of_a_stop_and_no_other_call_does(tmp_path):
    for call, watched, code in [("a", True, INTERRUPTED), ("a", False, 0), ("b", True, 0)]:
        file = tmp_path / "calls" / "a" / "stop"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("SIGUSR2\nnonsense\n")
        ended = run_job(lambda: time.sleep(0.7) or 0, 0, [], call=call, sweep=tmp_path, watched=watched)
        assert ended.code == code


def test_a_job_that_runs_is_waited_for_and_one_without_word_is_interrupted(tmp_path):
    here = JobRecord("a", 0, "running", "seed=0", pid=os.getpid(), host=os.uname().nodename, written="1")
    keep(tmp_path, here)
    assert still_running(tmp_path, "a") and not still_running(tmp_path, "b")
    (record,) = end_call(tmp_path, "a", interrupted=True)
    assert record.state == "interrupted" and "without word" in record.reason and "memory" not in record.reason
    assert not still_running(tmp_path, "a")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", False),
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", True),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher", True),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher", False),
    ],
)
def test_jobs_of_slurm_and_children_of_the_command_do_not_look_for_a_stop(target, expected):
    assert is_watched(OmegaConf.create({"hydra": {"launcher": {"_target_": target}}})) == expected
