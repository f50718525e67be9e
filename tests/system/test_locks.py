"""One writer at a time, and what becomes of a lock whose process is gone."""

from __future__ import annotations

import errno
import fcntl
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bdlf.system.errors import HeldError, StorageError
from bdlf.system.locks import held

HOLDER = """
import sys, time
from pathlib import Path
from bdlf.system.locks import held
with held(Path(sys.argv[1]), "the run", remedy=""):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(file: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file), str(seconds)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def hold(file: Path, **options) -> bool:
    with held(file, "the run", remedy="choose another output=", **options) as alone:
        assert file.exists()
        return alone


def test_the_second_is_told_who_holds_it_and_a_killed_holder_holds_nothing(tmp_path, caplog):
    caplog.set_level("INFO", "bdlf")
    file = tmp_path / "deep" / ".lock"
    process = holder(file, 60)
    since = rf"process {process.pid} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    with pytest.raises(HeldError, match=f"the run is being written by {since}.*; wait for it, or stop it"):
        hold(file)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert file.exists(), "nobody could remove it"
    assert hold(file) and re.search(f"the lock of the run was left by {since}.*, which is gone", caplog.text)
    assert not file.exists()
    caplog.clear()
    assert hold(file) and not caplog.text


def test_who_waits_gets_it_when_the_other_is_done(tmp_path, caplog):
    caplog.set_level("INFO", "bdlf")
    file = tmp_path / ".lock"
    process = holder(file, 0.3)
    started = time.perf_counter()
    assert hold(file, wait=True) and time.perf_counter() - started > 0.1
    assert f"waiting for the run, which process {process.pid}" in caplog.text
    assert process.wait() == 0 and not file.exists()


def test_it_is_given_back_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path / ".lock", "the run", remedy=""):
        raise ZeroDivisionError
    assert hold(tmp_path / ".lock")


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert not hold(tmp_path / ".lock") and "cannot be locked (Operation not supported)" in caplog.text


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write the run \(.*\): choose another output="):
        hold(tmp_path / "file" / ".lock")
