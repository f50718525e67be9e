"""A job in a process of its own: how it starts, what it says of itself while it works, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import IO, Any, NoReturn

DONE, FAILED, WRONG_INPUT, INTERRUPTED, STOPPED = 0, 1, 2, 75, 130
"""Exit codes: done, failed, wrong option or input, interrupted and resumable, stopped at once."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""Ctrl-C, what SLURM and submitit send before a job ends, and what a terminal sends when it closes."""

_parent: IO[str] | None = None  # in a job of a sweep: the pipe to the process that started it
_passed_on: signal.Signals | None = None  # the last signal that this process has passed on to a job


def heeded() -> list[signal.Signals]:
    """`SIGNALS`, without SIGHUP where it is ignored: `nohup` wants the run to outlive its terminal."""
    return [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]


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
    the signals that ask it to stop, so that the job can save and stop in order. A job that has not yet begun to
    listen to them ends at once with INTERRUPTED; at SIGINT, with KeyboardInterrupt.
    """
    global _passed_on
    _passed_on = None
    told, tell = os.pipe()
    alive, here = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    signals = heeded()
    unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until both processes have their handlers
    child = os.fork()
    if child == 0:
        os.close(told)
        os.close(here)
        _work_as_child(work, tell, alive, unmasked)
    os.close(tell)
    os.close(alive)
    facts: dict[str, Any] = {}
    rest = b""  # of a line whose end has not come; a job that is killed may leave one

    def pass_on(number: int, _: FrameType | None) -> None:
        global _passed_on
        _passed_on = signal.Signals(number)
        with suppress(ProcessLookupError):  # it has ended
            os.kill(child, number)

    before = {number: signal.signal(number, pass_on) for number in signals}
    signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
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


def hand_to_launcher() -> None:
    """After a job was interrupted: let a launcher around this process do what it does at the signal that was passed on.

    The handlers of this process wait until the job has saved. Now the handler that the launcher had set is called.
    submitit's for SIGUSR2 (a time-out) requeues the job and ends this process. submitit's for SIGTERM does nothing: on
    SLURM it means that SLURM is about to end the job. SLURM requeues a preempted job, and not a cancelled one, where
    the job does not end by itself; so this process waits for its end there. Returns where no launcher has a handler.
    """
    handler = signal.SIG_DFL if _passed_on is None else signal.getsignal(_passed_on)
    if _passed_on is None or not callable(handler) or handler is signal.default_int_handler:
        return
    handler(_passed_on, None)
    while os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        signal.pause()


def _work_as_child(work: Callable[[], int], tell: int, alive: int, unmasked: set[int | signal.Signals]) -> NoReturn:
    global _parent
    for number in heeded():
        if number != signal.SIGINT:
            signal.signal(number, lambda *_: os._exit(INTERRUPTED))  # also instead of a launcher's handler
    os.setpgid(0, 0)  # Ctrl-C of the terminal goes to the parent alone
    _parent = os.fdopen(tell, "w")

    def end_with_parent() -> None:
        os.read(alive, 1)  # returns when the parent's end closes
        os._exit(STOPPED)

    threading.Thread(target=end_with_parent, daemon=True).start()
    code = FAILED
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
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
