"""What became of the jobs of a sweep: a record per job, kept from its start, and tables of the records.

Every call of a command under one sweep name keeps its own records, so that no call overwrites those of another:

    <sweep>/calls/<call>/jobs/<n>.json   the record of job n of that call
    <sweep>/calls/<call>/jobs.csv        the jobs of that call
    <sweep>/jobs.csv                     every job that any call ran, with its newest record

One lock per sweep guards all of them, so that several processes can write at the same time.
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
from pathlib import Path
from typing import Any

from bdlf.commandline.jobs import DONE, FAILED, INTERRUPTED, in_words, run_apart
from bdlf.system.errors import InputError, StorageError
from bdlf.system.files import read_json, write_json, write_text
from bdlf.system.locks import held
from bdlf.system.screen_table import print_table

COLUMNS = ("call", "job", "state", "overrides", "run_id", "folder", "objective", "seconds", "reason", "log")
"""Of `jobs.csv`."""
STATES = ("running", "finished", "skipped", "would run", "interrupted", "held", "failed", "lost")
"""Of a job. held: another process writes the same run. lost: the job was running when its process was killed."""

log = logging.getLogger("bdlf")


@dataclass(frozen=True)
class JobRecord:
    """One job of one call."""

    call: str
    job: int  # its number in the call
    state: str  # one of STATES
    overrides: str
    pid: int  # of the process that started the job; the job ends with it
    host: str
    written: str  # when this record was written; UTC, sorts by time
    run_id: str = ""
    folder: str = ""
    log: str = ""
    reason: str = ""
    seconds: float | None = None  # None: not ended
    code: int | None = None  # exit code, negative for a signal; None: not ended
    estimate: float | None = None  # seconds
    objective: float | None = None  # the figure that objective= names; None: it has none


def new_call() -> str:
    """A name for the records of one call: names of later calls sort after it."""
    return f"{_now()}-{os.getpid()}"


def run_job(
    work: Callable[[], int], number: int, overrides: Sequence[str], *, call: str, sweep: Path | None
) -> JobRecord:
    """Call `work` in a process of its own and return the record of how it ended.

    The record is on disk in the folder `sweep` from the start of the job, and follows what the job announces. With
    `sweep` None nothing is written. A record that cannot be written stops no job: a warning says so at its end.
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
            with suppress(StorageError):  # the end of the job tries again
                keep(sweep, _with_facts(running, facts))

    follow({})
    started = time.perf_counter()
    code, facts = run_apart(work, follow)
    ended = at_its_end(running, code, facts, time.perf_counter() - started)
    if sweep is not None:
        try:
            keep(sweep, ended)
        except StorageError as error:
            log.warning("the record of job %d is not kept: %s", number, error)
    return ended


def at_its_end(running: JobRecord, code: int, facts: dict[str, Any], seconds: float) -> JobRecord:
    """The record of a job that ended with `code` after `seconds` and had announced `facts`."""
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
    there = record.log if os.path.isfile(record.log) else ""  # a job may fail before it writes one
    return dataclasses.replace(record, state=state, reason=reason, log=there, seconds=round(seconds, 1), code=code)


def keep(sweep: Path, record: JobRecord) -> None:
    """Write a record and both tables that show it. Waits for other writers. Raises `StorageError`."""
    with _alone(sweep):
        _write(sweep, record)
        _write_tables(sweep, record.call)


def end_call(sweep: Path, call: str, ran_here: Iterable[JobRecord] = (), *, kept: bool = True) -> list[JobRecord]:
    """The records of a call that has ended, by number: those on disk, and of `ran_here` what the disk does not have.

    A job that is still recorded as running had no chance to say how it ended: from here on it counts as failed.
    Unless `kept`, the folder `sweep` is removed. Raises `StorageError`.
    """
    found = {record.job: record for record in ran_here}
    try:
        found |= {record.job: record for record in _ended(sweep, call)}
    finally:
        if not kept:
            shutil.rmtree(sweep, ignore_errors=True)
    return [found[job] for job in sorted(found)]


def _ended(sweep: Path, call: str) -> list[JobRecord]:
    if not _folder(sweep, call).is_dir():
        return []
    with _alone(sweep):
        for record in _read(sweep, call):
            if record.state == "running":
                why = "the sweep ended without word from this job; perhaps it was killed because memory ran out"
                _write(sweep, dataclasses.replace(record, state="failed", reason=why, written=_now()))
        _write_tables(sweep, call)
        return _read(sweep, call)


def newest(records: Iterable[JobRecord]) -> list[JobRecord]:
    """One record per distinct job, the one that was written last; jobs stand in the order in which they first ran.

    Two records with the same overrides, in whatever order, are of the same job.
    """
    found: dict[tuple[str, ...], JobRecord] = {}
    for record in sorted(records, key=lambda record: (record.call, record.job)):
        job = tuple(sorted(record.overrides.split()))
        if job not in found or record.written >= found[job].written:
            found[job] = record
    return list(found.values())


def show(records: Sequence[JobRecord], tables: Sequence[Path]) -> None:
    """Print what became of every job, the counts, and which files hold the tables."""
    from rich.console import Console

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
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=160)
    console.print(", ".join(f"{states.count(state)} {state}" for state in STATES if state in states))
    seconds = [record.estimate for record in records if record.estimate and record.state == "would run"]
    if seconds:
        console.print(f"about {in_words(sum(seconds))} in all, one after the other")
    for path in tables:
        console.print(f"{path}")


def exit_code(records: Sequence[JobRecord]) -> int:
    """Of a call: FAILED where a job failed, else INTERRUPTED where the same call would go on with a job."""
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
    """The records of a call, or of all, by call and number."""
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
    """`record`, as lost where it says running and its process is gone; what other hosts run cannot be seen here."""
    if record.state != "running" or record.host != socket.gethostname():
        return record
    try:
        os.kill(record.pid, 0)  # sends nothing
    except ProcessLookupError:
        return dataclasses.replace(record, state="lost", reason=f"process {record.pid} was killed")
    except PermissionError:  # it runs, under another user
        pass
    return record


def _csv(records: Iterable[JobRecord]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, records))
    return text.getvalue().encode(errors="backslashreplace").decode()  # overrides may hold bytes that are not UTF-8


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
