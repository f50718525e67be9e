"""Runs a job in a child process: starts it, receives what it announces, passes signals on, returns its exit code."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import IO, Any, NoReturn

DONE, FAILED, WRONG_INPUT, INTERRUPTED, STOPPED = 0, 1, 2, 75, 130
"""Exit codes. INTERRUPTED: the job saved and can resume. STOPPED: it ended at once, without saving."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""Signals that ask a job to stop: Ctrl-C, those that SLURM and submitit send before they end a job, and SIGHUP, which a
closing terminal sends."""

_LOOK = 0.5  # seconds between two looks at what a sweep asks of its jobs

_parent: IO[str] | None = None  # in a child process: the pipe to its parent
_passed_on: signal.Signals | None = None  # in a parent process: the last signal that it received and passed on


def heeded() -> list[signal.Signals]:
    """`SIGNALS`, but without SIGHUP where `nohup` made the process ignore it: the run shall outlive its terminal."""
    return [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]


def announce(**facts: Any) -> None:
    """Send facts about this job to the process that runs the sweep. Outside a sweep this does nothing.

    `facts` are JSON values under the names that `JobRecord` has: state, run_id, folder, log, reason, objective, and
    estimate in seconds. A later value of a fact replaces an earlier one.
    """
    if _parent is not None:
        _parent.write(json.dumps(facts) + "\n")
        _parent.flush()


def run_apart(
    work: Callable[[], int],
    hear: Callable[[dict[str, Any]], object] = lambda _: None,
    asked: Callable[[], Iterable[signal.Signals]] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Call `work` in a child process. Returns its exit code, negative for a signal, and everything that it announced.

    Whenever the job announces something, `hear` is called with everything announced so far. A crash of the child, or a
    lack of memory there, does not end this process. If this process dies, the child exits immediately, without saving.

    This process passes the signals of `SIGNALS` on to the child, so that the job can save and stop in order. A child
    that has not installed its handlers yet exits with INTERRUPTED; at SIGINT it raises KeyboardInterrupt.

    `asked` returns all signals so far by which a sweep asks its jobs to stop. It is called twice a second, and these
    signals are passed on too. A signal that arrives both ways, as Ctrl-C may, is passed on once.
    """
    global _passed_on
    _passed_on = None
    from_child, to_parent = os.pipe()  # carries what the job announces
    parent_lives, held_by_parent = os.pipe()  # carries nothing: the child sees it close when the parent dies
    sys.stdout.flush()
    sys.stderr.flush()
    signals = heeded()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # signals wait until both processes have their handlers
    child = os.fork()
    if child == 0:
        os.close(from_child)
        os.close(held_by_parent)
        _work_as_child(work, to_parent, parent_lives, mask)
    os.close(to_parent)
    os.close(parent_lives)

    signals_of_child = _SignalsOf(child, asked)
    before = {number: signal.signal(number, signals_of_child.receive) for number in signals}
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        facts = _listen(from_child, hear, None if asked is None else signals_of_child.look)
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(from_child)
        os.close(held_by_parent)
    return os.waitstatus_to_exitcode(status), facts


class _SignalsOf:
    """Passes signals on to a child: those that this process receives, and those that `asked` returns.

    A signal that comes both ways is passed on once.
    """

    def __init__(self, child: int, asked: Callable[[], Iterable[signal.Signals]] | None) -> None:
        self._child, self._asked = child, asked
        self._received: Counter[int] = Counter()
        self._passed_on: Counter[int] = Counter()

    def receive(self, number: int, _: FrameType | None) -> None:
        """The handler of a signal."""
        global _passed_on
        _passed_on = signal.Signals(number)
        self._received[number] += 1
        self._pass_on(self._received)

    def look(self) -> None:
        """Pass on what is asked now."""
        if self._asked is not None:
            self._pass_on(Counter(self._asked()))

    def _pass_on(self, wanted: Counter[int]) -> None:
        for number, times in wanted.items():
            while self._passed_on[number] < times:
                self._passed_on[number] += 1
                with suppress(ProcessLookupError):  # the child has ended already
                    os.kill(self._child, number)


def _listen(pipe: int, hear: Callable[[dict[str, Any]], object], look: Callable[[], object] | None) -> dict[str, Any]:
    """Read what the child announces until it closes the pipe, and call `hear` after each line. Returns all facts.

    `look`, where there is one, is called at once and every `_LOOK` seconds.
    """
    facts: dict[str, Any] = {}
    unfinished = b""  # the beginning of a line; a child that is killed may never send the rest
    while True:
        if look is not None:
            look()
            if not select.select([pipe], [], [], _LOOK)[0]:
                continue
        part = os.read(pipe, 1 << 16)
        if not part:
            return facts
        *lines, unfinished = (unfinished + part).split(b"\n")
        for line in lines:
            facts |= json.loads(line)
            hear(facts)


def hand_to_launcher() -> None:
    """After a job was interrupted: call the handler that a launcher (submitit) had set for the signal.

    This process first lets the job save, and only then calls the launcher's handler for the signal that it passed on.
    Returns where the launcher has no handler.

    - At SIGUSR2 (the job's time is over), submitit's handler requeues the job and ends this process.
    - At SIGTERM, submitit's handler does nothing. On SLURM the signal announces that SLURM will end the job. SLURM
      requeues a preempted job only if SLURM itself ends it, so this process then waits until that happens.
    """
    handler = signal.SIG_DFL if _passed_on is None else signal.getsignal(_passed_on)
    if _passed_on is None or not callable(handler) or handler is signal.default_int_handler:
        return
    handler(_passed_on, None)
    while os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        signal.pause()


def _work_as_child(
    work: Callable[[], int], to_parent: int, parent_lives: int, mask: set[int | signal.Signals]
) -> NoReturn:
    """The child's whole life: set handlers, watch the parent, call `work` and exit with its code.

    `to_parent` and `parent_lives` are the child's ends of the pipes; `mask` is the signal mask to restore.
    """
    global _parent
    for number in heeded():
        if number != signal.SIGINT:
            signal.signal(number, lambda *_: os._exit(INTERRUPTED))  # replaces handlers that a launcher had set
    os.setpgid(0, 0)  # the terminal then sends Ctrl-C to the parent only, which passes it on
    _parent = os.fdopen(to_parent, "w")

    def end_with_parent() -> None:
        os.read(parent_lives, 1)  # returns when the parent's end closes
        os._exit(STOPPED)

    threading.Thread(target=end_with_parent, daemon=True).start()
    code = FAILED
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
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
    """A duration for people: `50 s` below 100 s, `12 min` below 100 min, else `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
