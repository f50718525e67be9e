"""The jobs of a sweep: each in a process of its own, with a table of what became of them."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bdlf.errors import InputError
from bdlf.files import read_json, write_json, write_text

DONE, FAILED, WRONG_INPUT, INTERRUPTED, STOPPED = 0, 1, 2, 75, 130
"""Exit codes: done, failed, wrong option or input, interrupted and resumable, stopped at once."""

COLUMNS = ("job", "state", "overrides", "run_id", "folder", "seconds", "reason", "log")
STATES = ("finished", "skipped", "would run", "interrupted", "held", "failed")
"""Of a job; held: another process is at it."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, and what SLURM sends before it ends a job."""
_CALL = "BDLF_SWEEP_CALL"  # tells the records of this call from older ones; in the environment, for other processes

_facts: dict[str, Any] = {}


def announce(**facts: Any) -> None:
    """What the job of this process says of itself: state, run_id, folder, log, reason, estimate (seconds)."""
    _facts.update(facts)


def run_apart(work: Callable[[], int]) -> tuple[int, dict[str, Any]]:
    """Call `work` in a process of its own; its exit code, negative for a signal, and what it announced.

    Whatever happens there (a crash, memory that runs out) does not end this process; when this one ends, that one
    does at once. Signals that ask this one to stop are passed on, so that the job can save and stop in order.
    """
    told, tell = os.pipe()
    alive, here = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.close(here)
        _work_as_child(work, tell, alive)
    os.close(tell)
    os.close(alive)
    text = b""
    before = {number: signal.signal(number, lambda number, _: os.kill(child, number)) for number in SIGNALS}
    try:
        while part := os.read(told, 1 << 16):
            text += part
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)
        os.close(here)
    return os.waitstatus_to_exitcode(status), json.loads(text) if text else {}


def _work_as_child(work: Callable[[], int], tell: int, alive: int) -> NoReturn:
    os.setpgid(0, 0)  # Ctrl-C of the terminal goes to the parent alone
    _facts.clear()

    def end_with_parent() -> None:
        os.read(alive, 1)  # returns when the parent's end closes
        os._exit(STOPPED)

    threading.Thread(target=end_with_parent, daemon=True).start()
    code = FAILED
    try:
        code = work()
    except KeyboardInterrupt:
        code = STOPPED
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else FAILED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(tell, json.dumps(_facts).encode())
        os._exit(code)


def begin_call() -> None:
    """Records written from here on, in this process or one that it starts, belong to this call."""
    os.environ[_CALL] = f"{time.time_ns()}-{os.getpid()}"


def job_record(
    number: int, overrides: Sequence[str], code: int, facts: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """A job's row of `jobs.csv`, with its exit code and estimate."""
    state = facts.get("state", "finished")
    reason = facts.get("reason", "")
    if code == INTERRUPTED and state != "held":
        state = "interrupted"
    elif code < 0:
        state, reason = "failed", f"ended by signal {-code} ({signal.Signals(-code).name})"
        reason += ": perhaps memory ran out" if -code == signal.SIGKILL else ""
    elif code not in (DONE, INTERRUPTED):
        state = "failed"
    return {
        "job": number,
        "state": state,
        "overrides": " ".join(overrides),
        "run_id": facts.get("run_id", ""),
        "folder": facts.get("folder", ""),
        "seconds": round(seconds, 1),
        "reason": reason,
        "log": facts.get("log", "") if state == "failed" else "",
        "code": code,
        "estimate": facts.get("estimate"),
        "call": os.environ.get(_CALL),
    }


def keep(folder: Path, record: dict[str, Any]) -> None:
    """Write a job's record below the sweep's folder, and `jobs.csv` anew."""
    write_json(folder / "jobs" / f"{record['job']}.json", record)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept(folder))
    write_text(folder / "jobs.csv", text.getvalue())


def kept(folder: Path) -> list[dict[str, Any]]:
    """The records of this call, by number; those that cannot be read are left out."""
    records = []
    for path in (folder / "jobs").glob("*.json"):
        try:
            records.append(read_json(path))
        except InputError:
            continue
    call = os.environ.get(_CALL)
    return sorted((record for record in records if record.get("call") == call), key=lambda record: record["job"])


def show(records: Sequence[dict[str, Any]], folder: Path | None) -> None:
    """Print what became of every job, the counts, and where the table is kept."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="jobs", title_justify="left")
    for heading in ("job", "state", "what differs", "run folder, or why it failed and the log"):
        table.add_column(heading, overflow="fold")
    words = [record["overrides"].split() for record in records]
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()
    for record, own in zip(records, words, strict=True):
        where = f"{record['reason']} {record['log']}".strip() if record["reason"] else record["folder"]
        table.add_row(str(record["job"]), record["state"], " ".join(w for w in own if w not in shared), where)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=160)
    console.print(table)
    states = [record["state"] for record in records]
    console.print(", ".join(f"{states.count(state)} {state}" for state in STATES if state in states))
    seconds = [record["estimate"] for record in records if record["estimate"] and record["state"] == "would run"]
    if seconds:
        console.print(f"about {in_words(sum(seconds))} in all, one after the other")
    if folder is not None:
        console.print(f"{folder / 'jobs.csv'}")


def exit_code(records: Sequence[dict[str, Any]]) -> int:
    """Of the whole sweep: FAILED where a job failed, INTERRUPTED where one is to be gone on with."""
    states = {record["state"] for record in records}
    return FAILED if "failed" in states else INTERRUPTED if states & {"interrupted", "held"} else DONE


def in_words(seconds: float) -> str:
    """`50 s`, `12 min`, `3.5 h`"""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
