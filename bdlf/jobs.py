"""A job in a process of its own: how it starts, what it says of itself while it works, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import IO, Any, NoReturn

DONE, FAILED, WRONG_INPUT, INTERRUPTED, STOPPED = 0, 1, 2, 75, 130
"""Exit codes: done, failed, wrong option or input, interrupted and resumable, stopped at once."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, and what SLURM sends before it ends a job."""

_parent: IO[str] | None = None  # in a job of a sweep: the pipe to the process that started it


def announce(**facts: Any) -> None:
    """Tell the sweep at once what it should know of this job: state, run_id, folder, log, reason, estimate (seconds).

    The facts must be JSON values. A later value of a fact replaces an earlier one. Outside a sweep nobody listens.
    """
    if _parent is not None:
        _parent.write(json.dumps(facts) + "\n")
        _parent.flush()


def run_apart(
    work: Callable[[], int], hear: Callable[[dict[str, Any]], object] = lambda _: None
) -> tuple[int, dict[str, Any]]:
    """Call `work` in a process of its own. Returns its exit code, negative for a signal, and all that it announced.

    `hear` gets everything announced so far, as soon as the job announces something. A crash of the job, or a lack of
    memory there, does not end this process. When this process ends, the job ends at once. This process passes on
    the signals that ask it to stop, so that the job can save and stop in order.
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
    facts: dict[str, Any] = {}
    rest = b""  # of a line whose end has not come; a job that is killed may leave one
    before = {number: signal.signal(number, lambda number, _: os.kill(child, number)) for number in SIGNALS}
    try:
        while part := os.read(told, 1 << 16):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                facts |= json.loads(line)
                hear(facts)
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)
        os.close(here)
    return os.waitstatus_to_exitcode(status), facts


def _work_as_child(work: Callable[[], int], tell: int, alive: int) -> NoReturn:
    global _parent
    os.setpgid(0, 0)  # Ctrl-C of the terminal goes to the parent alone
    _parent = os.fdopen(tell, "w")

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
        os._exit(code)


def in_words(seconds: float) -> str:
    """`50 s`, `12 min`, `3.5 h`"""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
