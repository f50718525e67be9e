"""The records of a sweep's jobs: one record for each job, written when the job starts and updated until it ends.

Several calls of a command may share one sweep name. Each call has records of its own, so no call overwrites another's:

    <sweep>/calls/<call>/jobs/<n>.json   the record of job n of that call
    <sweep>/calls/<call>/jobs.csv        all jobs of that call
    <sweep>/jobs.csv                     all jobs of all calls, each with its newest record

One lock for each sweep guards all these files, so that several processes can write them at the same time.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from bdlf.commandline.jobs import DONE, FAILED, INTERRUPTED, in_words, run_apart
from bdlf.commandline.sweep_stop import signals_asked
from bdlf.system.errors import InputError, StorageError
from bdlf.system.files import read_json, write_json, write_text
from bdlf.system.locks import held
from bdlf.system.screen_table import print_line, print_table

COLUMNS = ("call", "job", "state", "overrides", "run_id", "folder", "objective", "seconds", "reason", "log")
"""The columns of `jobs.csv`."""
STATES = ("running", "finished", "skipped", "would run", "interrupted", "held", "failed", "lost")
"""The states of a job. skipped: the run was finished before. would run: this was a dry run. held: another process
writes the same run. lost: the job is recorded as running, but its process was killed."""

log = logging.getLogger("bdlf")


@dataclass(frozen=True)
class JobRecord:
    """What is known of one job of one call."""

    call: str
    job: int  # its number in the call, from 0
    state: str  # one of STATES
    overrides: str  # the words of the command line that make this job, separated by spaces
    pid: int  # the process that started the job; the job ends when that process ends
    host: str
    written: str  # when this record was written, in UTC, in a form that sorts by time
    run_id: str = ""
    folder: str = ""
    log: str = ""
    reason: str = ""
    seconds: float | None = None  # how long the job took; None until it has ended
    code: int | None = None  # exit code, negative for a signal; None until the job has ended
    estimate: float | None = None  # seconds that a dry run expects the job to take
    objective: float | None = None  # the value of the figure that objective= names, where the job has one


def new_call() -> str:
    """A new name for the records of one call. The names of later calls sort after those of earlier ones."""
    return f"{_now()}-{os.getpid()}"


def run_job(
    work: Callable[[], int],
    number: int,
    overrides: Sequence[str],
    *,
    call: str,
    sweep: Path | None,
    watched: bool = False,
) -> JobRecord:
    """Call `work` in a process of its own and return the record of how it ended.

    `number` is the job's number in the call, and `overrides` are its words. The record is written into the folder
    `sweep` when the job starts and whenever the job announces something; where `sweep` is None, nothing is written. A
    record that cannot be written never stops the job: a warning is logged when the job has ended. With `watched`, the
    signals that `sweep_stop.signals_asked` returns are passed on to the job.
    """
    running = JobRecord(
        call=call,
        job=number,
        state="running",
        overrides=" ".join(overrides),
        pid=os.getpid(),
        host=socket.gethostname(),
        written=_now(),
    )

    def follow(facts: dict[str, Any]) -> None:
        if sweep is not None:
            with suppress(StorageError):  # it is written again at the end of the job, with a warning if that fails
                keep(sweep, _with_facts(running, facts))

    follow({})
    started = time.perf_counter()
    asked = partial(signals_asked, sweep, call) if watched and sweep is not None else None
    code, facts = run_apart(work, follow, asked)
    ended = at_its_end(running, code, facts, time.perf_counter() - started)
    if sweep is not None:
        try:
            keep(sweep, ended)
        except StorageError as error:
            log.warning("the record of job %d is not kept: %s", number, error)
    return ended


def at_its_end(running: JobRecord, code: int, facts: dict[str, Any], seconds: float) -> JobRecord:
    """The record of a job that has announced `facts` and ended with exit code `code` after `seconds`.

    `running` is its record from before.
    """
    state = facts.get("state", "finished")
    reason = facts.get("reason", "")
    if code == INTERRUPTED and state != "held":
        state = "interrupted"
    elif code < 0:
        state, reason = "failed", f"ended by signal {-code} ({signal.Signals(-code).name})"
        reason += ": perhaps memory ran out" if -code == signal.SIGKILL else ""
    elif code not in (DONE, INTERRUPTED):
        state = "failed"
    record = _with_facts(running, facts)
    there = record.log if os.path.isfile(record.log) else ""  # a job may fail before it writes its log
    return dataclasses.replace(record, state=state, reason=reason, log=there, seconds=round(seconds, 1), code=code)


def keep(sweep: Path, record: JobRecord) -> None:
    """Write a record and the two tables that contain it, after waiting for other writers.

    Raises `StorageError` where they cannot be written.
    """
    with _alone(sweep):
        _write(sweep, record)
        _write_tables(sweep, record.call)


def still_running(sweep: Path, call: str) -> bool:
    """Whether any job of a call is running. A job whose process is gone is not."""
    return any(_as_it_is(record).state == "running" for record in _read(sweep, call))


def end_call(
    sweep: Path, call: str, ran_here: Iterable[JobRecord] = (), *, kept: bool = True, interrupted: bool = False
) -> list[JobRecord]:
    """The records of a call that has ended, sorted by job number.

    They are read from the disk. `ran_here` adds the records that could not be written. A job that is still recorded as
    running was killed before it could say how it ended, so its record is changed to failed, or to interrupted where the
    whole call was `interrupted`. With `kept=False` the folder `sweep` is removed afterwards. Raises `StorageError`
    where a record cannot be written.
    """
    found = {record.job: record for record in ran_here}
    try:
        found |= {record.job: record for record in _ended(sweep, call, "interrupted" if interrupted else "failed")}
    finally:
        if not kept:
            shutil.rmtree(sweep, ignore_errors=True)
    return [found[job] for job in sorted(found)]


def _ended(sweep: Path, call: str, without_word: str) -> list[JobRecord]:
    """The records of a call that has ended; `without_word` is the state of jobs that did not say how they ended."""
    if not _folder(sweep, call).is_dir():
        return []
    with _alone(sweep):
        for record in _read(sweep, call):
            if record.state == "running":
                why = "the sweep ended without word from this job"
                why += "; perhaps it was killed because memory ran out" if without_word == "failed" else ""
                _write(sweep, dataclasses.replace(record, state=without_word, reason=why, written=_now()))
        _write_tables(sweep, call)
        return _read(sweep, call)


def newest(records: Iterable[JobRecord]) -> list[JobRecord]:
    """The newest record of each distinct job, in the order in which the jobs first ran.

    Two records belong to the same job if they have the same overrides, in whatever order.
    """
    found: dict[tuple[str, ...], JobRecord] = {}
    for record in sorted(records, key=lambda record: (record.call, record.job)):
        job = tuple(sorted(record.overrides.split()))
        if job not in found or record.written >= found[job].written:
            found[job] = record
    return list(found.values())


def show(records: Sequence[JobRecord], tables: Sequence[Path]) -> None:
    """Print a table of all jobs, how many are in each state, and the paths of the files that hold the tables."""
    headings = ["job", "state", "what differs", "run folder, or why it failed and the log"]
    rows = []
    words = [record.overrides.split() for record in records]
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()
    for record, own in zip(records, words, strict=True):
        why = f"{record.reason} {record.log if record.state == 'failed' else ''}".strip()
        differing = " ".join(word for word in own if word not in shared)
        rows.append([str(record.job), record.state, differing, why or record.folder])
    print_table(headings, rows, title="jobs", text=(2, 3))
    states = [record.state for record in records]
    print_line(", ".join(f"{states.count(state)} {state}" for state in STATES if state in states))
    seconds = [record.estimate for record in records if record.estimate and record.state == "would run"]
    if seconds:
        print_line(f"about {in_words(sum(seconds))} in all, one after the other")
    for path in tables:
        print_line(str(path))


def exit_code(records: Sequence[JobRecord]) -> int:
    """The exit code of a call: FAILED if a job failed, else INTERRUPTED if repeating the call would resume a job."""
    states = {record.state for record in records}
    return FAILED if "failed" in states else INTERRUPTED if states & {"interrupted", "held"} else DONE


def _with_facts(record: JobRecord, facts: dict[str, Any]) -> JobRecord:
    known = {name: facts[name] for name in ("run_id", "folder", "log", "estimate", "objective") if name in facts}
    return dataclasses.replace(record, **known, written=_now())


def _alone(sweep: Path) -> AbstractContextManager[bool]:
    return held(sweep / ".jobs.lock", f"{sweep / 'jobs.csv'}", remedy="choose another output=", wait=True)


def _folder(sweep: Path, call: str) -> Path:
    return sweep / "calls" / call


def _write(sweep: Path, record: JobRecord) -> None:
    write_json(_folder(sweep, record.call) / "jobs" / f"{record.job}.json", dataclasses.asdict(record))


def _read(sweep: Path, call: str = "*") -> list[JobRecord]:
    """The records of one call, or of all calls, sorted by call and job number."""
    records = []
    for path in (sweep / "calls").glob(f"{call}/jobs/*.json"):
        try:
            records.append(JobRecord(**read_json(path)))
        except (InputError, TypeError):
            log.warning("%s is not the record of a job: no table shows it", path)
    return sorted(records, key=lambda record: (record.call, record.job))


def _write_tables(sweep: Path, call: str) -> None:
    records = [_as_it_is(record) for record in _read(sweep)]
    write_text(_folder(sweep, call) / "jobs.csv", _csv(record for record in records if record.call == call))
    write_text(sweep / "jobs.csv", _csv(newest(records)))


def _as_it_is(record: JobRecord) -> JobRecord:
    """`record`, with state `lost` if it says running although its process is gone.

    Processes on other hosts cannot be checked; their records are returned unchanged.
    """
    if record.state != "running" or record.host != socket.gethostname():
        return record
    try:
        os.kill(record.pid, 0)  # signal 0 only checks that the process exists
    except ProcessLookupError:
        return dataclasses.replace(record, state="lost", reason=f"process {record.pid} was killed")
    except PermissionError:  # the process exists and belongs to another user
        pass
    return record


def _csv(records: Iterable[JobRecord]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, records))
    return text.getvalue().encode(errors="backslashreplace").decode()  # file names may hold bytes that are not UTF-8


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
