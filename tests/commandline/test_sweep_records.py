"""Jobs of a sweep and their records: what a job says, what is kept of it, and the tables over several calls."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bdlf.commandline import jobs, sweep_records
from bdlf.commandline.jobs import DONE, FAILED, INTERRUPTED, STOPPED, WRONG_INPUT, announce, in_words, run_apart
from bdlf.commandline.sweep_records import JobRecord, at_its_end, end_call, exit_code, keep, new_call, newest, run_job


def record(call: str = "a", job: int = 0, state: str = "finished", overrides: str = "seed=0", **more) -> JobRecord:
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "written": f"{call}"} | more
    return JobRecord(call, job, state, overrides, **facts)


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open() as file:
        return list(csv.DictReader(file))


def is_soon(is_so: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return is_so()


def test_what_a_job_says_is_heard_while_it_works(tmp_path):
    heard = []

    def hear(facts):
        heard.append(dict(facts))
        (tmp_path / str(len(heard))).touch()

    def work() -> int:
        announce(run_id="a", folder="there")
        if not is_soon((tmp_path / "1").exists):
            return 3
        announce(state="skipped", folder="here")
        return 0 if is_soon((tmp_path / "2").exists) else 4

    assert run_apart(work, hear) == (0, {"run_id": "a", "folder": "here", "state": "skipped"})
    assert heard == [{"run_id": "a", "folder": "there"}, {"run_id": "a", "folder": "here", "state": "skipped"}]


def test_a_job_that_is_killed_has_said_what_it_said():
    def killed() -> int:
        announce(run_id="a", reason="é\n" * 50_000)  # more than a pipe holds
        jobs._parent.write('{"run_id": "cut o')
        jobs._parent.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert run_apart(killed) == (-signal.SIGKILL, {"run_id": "a", "reason": "é\n" * 50_000})


def test_exit_codes_of_jobs():
    def broken() -> int:
        raise MemoryError

    def left() -> int:
        sys.exit(5)

    assert [run_apart(work) for work in (broken, left, lambda: INTERRUPTED)] == [
        (FAILED, {}),
        (5, {}),
        (INTERRUPTED, {}),
    ]


def test_the_record_of_a_job_exists_from_its_start_and_follows_it(tmp_path):
    file = tmp_path / "calls" / "now" / "jobs" / "3.json"

    def work() -> int:
        first = json.loads(file.read_text())
        announce(run_id="a", folder="b", log="c")
        announce(estimate=2.5)
        assert is_soon(lambda: json.loads(file.read_text())["estimate"] == 2.5)
        second = json.loads(file.read_text())
        (tmp_path / "seen").write_text(json.dumps([first, second, rows_of(tmp_path / "jobs.csv")]))
        return 0

    ended = run_job(work, 3, ["seed=1", "dfe.stage=2"], call="now", sweep=tmp_path)
    first, second, (row,) = json.loads((tmp_path / "seen").read_text())
    for seen in (first, second):
        assert (seen["state"], seen["overrides"], seen["code"]) == ("running", "seed=1 dfe.stage=2", None)
        assert (seen["pid"], seen["host"]) == (os.getpid(), socket.gethostname())
    assert first["run_id"] == first["folder"] == first["log"] == ""
    assert (
        [second[name] for name in ("run_id", "folder", "log")]
        == ["a", "b", "c"]
        == [row[name] for name in ("run_id", "folder", "log")]
    )
    assert JobRecord(**json.loads(file.read_text())) == ended
    assert (ended.state, ended.code, ended.run_id, ended.folder) == ("finished", 0, "a", "b")
    assert ended.log == "", "a log that was never written"
    assert rows_of(tmp_path / "jobs.csv")[0]["state"] == "finished"


@pytest.mark.parametrize(
    ("code", "facts", "state", "reason"),
    [
        (DONE, {}, "finished", ""),
        (DONE, {"state": "skipped"}, "skipped", ""),
        (WRONG_INPUT, {"reason": "why"}, "failed", "why"),
        (FAILED, {"state": "skipped"}, "failed", ""),
        (STOPPED, {}, "failed", ""),
        (INTERRUPTED, {}, "interrupted", ""),
        (INTERRUPTED, {"state": "held", "reason": "who"}, "held", "who"),
        (-signal.SIGKILL, {}, "failed", "ended by signal 9 (SIGKILL): perhaps memory ran out"),
        (-signal.SIGSEGV, {}, "failed", "ended by signal 11 (SIGSEGV)"),
    ],
)
def test_how_a_job_ended(code, facts, state, reason, tmp_path):
    log = tmp_path / "train.log"
    log.touch()
    ended = at_its_end(record(state="running"), code, {"run_id": "r", "log": str(log)} | facts, 1.26)
    assert (ended.state, ended.reason, ended.code, ended.seconds) == (state, reason, code, 1.3)
    assert (ended.run_id, ended.log) == ("r", str(log))


def test_names_of_calls_sort_by_time():
    names = [new_call() for _ in range(3)]
    assert names == sorted(set(names)) and all(name.endswith(f"-{os.getpid()}") for name in names)


def test_the_table_of_a_sweep_unites_its_calls(tmp_path):
    for job, state in enumerate(["finished", "failed", "finished"]):
        keep(tmp_path, record("a", job, state, f"dfe.stage=2 seed={job}"))
    keep(tmp_path, record("b", 0, "skipped", "seed=1 dfe.stage=2"))
    keep(tmp_path, record("b", 1, "finished", "dfe.stage=3 seed=1"))
    table = [(row["call"], row["job"], row["state"], row["overrides"]) for row in rows_of(tmp_path / "jobs.csv")]
    assert table == [
        ("a", "0", "finished", "dfe.stage=2 seed=0"),
        ("b", "0", "skipped", "seed=1 dfe.stage=2"),
        ("a", "2", "finished", "dfe.stage=2 seed=2"),
        ("b", "1", "finished", "dfe.stage=3 seed=1"),
    ]
    assert [row["job"] for row in rows_of(tmp_path / "calls" / "a" / "jobs.csv")] == ["0", "1", "2"]
    assert [row["state"] for row in rows_of(tmp_path / "calls" / "b" / "jobs.csv")] == ["skipped", "finished"]
    assert [r.state for r in end_call(tmp_path, "a")] == ["finished", "failed", "finished"]


def test_a_job_counts_as_it_was_recorded_last_even_by_an_earlier_call():
    held = record("b", 0, "held", written="2")
    assert newest([held, record("a", 0, "running", written="1")]) == [held]
    ended = record("a", 0, "finished", written="3")
    assert newest([held, ended]) == [ended]


def test_jobs_of_processes_that_are_gone_are_lost(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    keep(tmp_path, record("a", 0, "running", "seed=0", pid=gone.pid, run_id="r", folder="f", log="l"))
    keep(tmp_path, record("a", 1, "running", "seed=1"))
    keep(tmp_path, record("a", 2, "running", "seed=2", pid=gone.pid, host="elsewhere"))
    keep(tmp_path, record("a", 3, "finished", "seed=3", pid=gone.pid))
    keep(tmp_path, record("b", 0, "finished", "seed=4"))
    rows = rows_of(tmp_path / "jobs.csv")
    assert [row["state"] for row in rows] == ["lost", "running", "running", "finished", "finished"]
    assert f"process {gone.pid}" in rows[0]["reason"]
    assert (rows[0]["run_id"], rows[0]["folder"], rows[0]["log"]) == ("r", "f", "l")


def test_a_job_without_word_at_the_end_of_its_call_has_failed(tmp_path):
    keep(tmp_path, record("a", 0, "finished", "seed=0"))
    keep(tmp_path, record("a", 1, "running", "seed=1", run_id="r", folder="f", log="l"))
    keep(tmp_path, record("b", 0, "running", "seed=2"))
    done, failed = end_call(tmp_path, "a")
    assert (done.state, failed.state, exit_code([done, failed]), exit_code([done])) == ("finished", "failed", FAILED, 0)
    assert "killed" in failed.reason and (failed.run_id, failed.folder, failed.log) == ("r", "f", "l")
    assert [row["state"] for row in rows_of(tmp_path / "jobs.csv")] == ["finished", "failed", "running"]
    assert end_call(tmp_path, "a") == [done, failed]
    assert end_call(tmp_path / "none", "a") == [] and not (tmp_path / "none").exists()
    assert exit_code([record(state="held"), done]) == exit_code([record(state="interrupted")]) == INTERRUPTED


def test_two_writers_at_once_lose_no_row(tmp_path, monkeypatch):
    written = sweep_records.write_text
    before_writing, go_on = threading.Event(), threading.Event()

    def slowly(path: Path, text: str) -> None:
        if threading.current_thread() is slow and path == tmp_path / "jobs.csv":
            before_writing.set()
            go_on.wait(20)
        written(path, text)

    monkeypatch.setattr(sweep_records, "write_text", slowly)
    slow = threading.Thread(target=keep, args=(tmp_path, record("a", 0, overrides="seed=0")))
    fast = threading.Thread(target=keep, args=(tmp_path, record("b", 0, overrides="seed=1")))
    slow.start()
    assert before_writing.wait(20)
    fast.start()
    fast.join(0.5)
    go_on.set()
    for thread in (slow, fast):
        thread.join(20)
    assert [row["overrides"] for row in rows_of(tmp_path / "jobs.csv")] == ["seed=0", "seed=1"]


def test_a_record_that_cannot_be_written_stops_no_job(tmp_path, caplog):
    (tmp_path / "calls").write_text("a file where a folder is needed")
    with caplog.at_level(logging.WARNING):
        ended = run_job(lambda: 0, 4, ["seed=1"], call="now", sweep=tmp_path)
    assert ended.state == "finished" and len(caplog.messages) == 1
    assert re.search(r"record of job 4 is not kept: .*calls.*choose another output=", caplog.messages[0])


def test_a_file_that_is_no_record_is_named_and_left_out(tmp_path, caplog):
    keep(tmp_path, record("a", 0))
    for name, text in (("7", "half"), ("8", '{"job": 1}'), ("9", "[]")):
        (tmp_path / "calls" / "a" / "jobs" / f"{name}.json").write_text(text)
    assert end_call(tmp_path, "a") == [record("a", 0)]
    assert all(f"{name}.json is not the record of a job" in caplog.text for name in "789")


def test_overrides_that_are_not_text_reach_the_table(tmp_path):
    keep(tmp_path, record("a", 0, overrides="label='\udcff'"))
    assert rows_of(tmp_path / "jobs.csv")[0]["overrides"] == r"label='\udcff'"
    assert end_call(tmp_path, "a") == [dataclasses.replace(record("a", 0), overrides="label='\udcff'")]


@pytest.mark.parametrize(("seconds", "words"), [(50, "50 s"), (720, "12 min"), (12600, "3.5 h")])
def test_time_in_words(seconds, words):
    assert in_words(seconds) == words
