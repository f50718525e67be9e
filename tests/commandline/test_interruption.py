"""What a signal does, depending on when it comes."""

from __future__ import annotations

import csv
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bdlf.commandline.interruption import Interrupted, Interruption
from bdlf.commandline.jobs import INTERRUPTED, SIGNALS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_raises_at_once_or_at_the_end_of_what_is_held(number):
    before = signal.getsignal(number)
    with Interruption() as stop, pytest.raises(Interrupted, match=number.name):
        signal.raise_signal(number)
        raise AssertionError("too late")
    assert stop.asked == number.name and signal.getsignal(number) is before
    reached = []
    with Interruption() as stop, pytest.raises(Interrupted), stop.held():
        signal.raise_signal(number)
        reached.append(stop.asked)
    assert reached == [number.name]
    with Interruption() as stop, pytest.raises(Interrupted), stop.held():
        with stop.released():
            signal.raise_signal(number)
        raise AssertionError("too late")


def test_without_a_signal_nothing_is_raised_and_an_error_is_not_hidden():
    with Interruption() as stop, stop.held():
        pass
    with pytest.raises(ZeroDivisionError), Interruption() as stop, stop.held():
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError


@pytest.mark.parametrize(("second", "code"), [("SIGINT", 130), ("SIGTERM", 0)])
def test_only_a_second_ctrl_c_ends_the_process(second, code):
    script = f"""
import signal
from bdlf.commandline.interruption import Interruption, Interrupted
try:
    with Interruption() as stop, stop.held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.{second})
        print("saved", flush=True)
except Interrupted:
    print("left in order")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code and ("left in order" in done.stdout) == (code == 0)
    assert (done.stderr == "stopped\n") == (code == 130)


def test_nohup_holds_for_a_closed_terminal_and_for_nothing_else():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.asked is None
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


AROUND_A_JOB = """
import os, signal, sys, time
from bdlf.commandline.interruption import Interrupted, Interruption
from bdlf.commandline.jobs import INTERRUPTED, hand_to_launcher, run_apart

def say(word):
    print(word, flush=True)

def requeue(number, frame):
    say(f"{signal.Signals(number).name} to the launcher")
    sys.exit(9)

def bypass(number, frame):
    say(f"{signal.Signals(number).name} to the launcher, which does nothing")

def deaf():
    say("works")
    time.sleep(60)

def listening():
    try:
        with Interruption():
            deaf()
    except Interrupted:
        time.sleep(0.2)
        say("saved")
        return INTERRUPTED

for name, handler in zip(sys.argv[2::2], sys.argv[3::2]):
    signal.signal(getattr(signal, name), globals().get(handler) or getattr(signal, handler))
say(run_apart(globals()[sys.argv[1]])[0])
hand_to_launcher()
say("left")
"""


@pytest.fixture
def around_a_job():
    """`around_a_job(work, *handlers, **environment)`: a process with these handlers around a job that works now."""
    started = []

    def start(work: str, *handlers: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", AROUND_A_JOB, work, *handlers],
            env={**os.environ, **environment},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "works\n"
        return process

    yield start
    for process in started:
        process.kill()


SUBMITIT = ("SIGUSR2", "requeue", "SIGTERM", "bypass")
"""The handlers of a submitit job around ours."""


@pytest.mark.parametrize("name", ["SIGUSR2", "SIGHUP", "SIGTERM"])
def test_a_signal_reaches_the_job_which_saves_and_the_process_around_it_goes_on(name, around_a_job):
    process = around_a_job("listening")
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=60)[0].split("\n") == ["saved", "75", "left", ""] and process.returncode == 0


def test_a_job_that_does_not_listen_yet_ends_as_interrupted(around_a_job):
    for handlers in ((), SUBMITIT):
        process = around_a_job("deaf", *handlers)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0].split("\n")[0] == "75"


def test_the_job_saves_before_its_launcher_requeues_it(around_a_job):
    process = around_a_job("listening", *SUBMITIT)
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=60)[0].split("\n") == ["saved", "75", "SIGUSR2 to the launcher", ""]
    assert process.returncode == 9


def test_before_slurm_ends_a_job_of_submitit_it_saves_and_waits_so_that_slurm_requeues_it(around_a_job):
    process = around_a_job("listening", *SUBMITIT, SUBMITIT_EXECUTOR="slurm")
    process.send_signal(signal.SIGTERM)
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines == ["saved\n", "75\n", "SIGTERM to the launcher, which does nothing\n"]
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGUSR2)  # a launcher may still requeue it
    assert process.communicate(timeout=60)[0] == "SIGUSR2 to the launcher\n" and process.returncode == 9
    process = around_a_job("listening", *SUBMITIT, SUBMITIT_EXECUTOR="local")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0].endswith("does nothing\nleft\n")


def test_nohup_holds_for_a_sweep(around_a_job):
    process = around_a_job("listening", "SIGHUP", "SIG_IGN")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=60)[0].split("\n") == ["saved", "75", "left", ""]


@pytest.mark.slow
def test_a_closed_terminal_interrupts_a_sweep_which_saves_its_job(tiny, tmp_path):
    words = ["-m", "seed=0,1", "dfe.enabled=false", "schedule.epochs=60"]
    words = [*tiny, f"output={tmp_path}/out", f"data.cache_dir={tmp_path}/cache", *words]
    terminal, other_end = pty.openpty()
    in_terminal = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", in_terminal, sys.executable, "-m", "bdlf.train", *words],
        **dict.fromkeys(("stdin", "stdout", "stderr"), other_end),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(other_end)
    os.set_blocking(terminal, False)
    shown = b""
    while not list(tmp_path.glob("out/synthetic/*/seed0/metrics.csv")):
        assert process.poll() is None, shown.decode()
        try:
            shown += os.read(terminal, 1 << 16)
        except BlockingIOError:
            time.sleep(0.02)
    os.close(terminal)
    assert process.wait(60) == INTERRUPTED
    with (tmp_path / "out" / "sweeps" / "multirun" / "jobs.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["interrupted"]
    (log,) = tmp_path.glob("out/synthetic/*/seed0/train.log")
    assert "interrupted by SIGHUP" in log.read_text() and not list(tmp_path.glob("out/synthetic/*/seed1"))
    assert list(tmp_path.glob("out/synthetic/*/seed0/checkpoints/last.pt"))
