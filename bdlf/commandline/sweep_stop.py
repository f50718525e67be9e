"""Stops a sweep whose jobs run in processes that a launcher has started (joblib, submitit_local).

The command that receives a signal appends the signal's name to the file `calls/<call>/stop` in the sweep's folder. The
process around each job looks for this file twice a second and passes the signal on to its job; a job that has not begun
does not begin. No process is signalled by its number, because that number may meanwhile belong to another process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from omegaconf import DictConfig

from bdlf.commandline.jobs import INTERRUPTED, SIGNALS, STOPPED, heeded

_FILE = "stop"
_UNWATCHED = ("BasicLauncher", "SlurmLauncher")
_LOOK = 0.2  # seconds between two looks at whether jobs are still running
_AT_ONCE = 10.0  # seconds that jobs get to end after a second Ctrl-C
_NAMES = {one.name: one for one in SIGNALS}


def is_watched(sweep: DictConfig) -> bool:
    """Whether a signal to the command must be told to the jobs by the file `stop`.

    It need not be with Hydra's basic launcher, whose jobs are children of the command. It must not be with
    submitit_slurm: its jobs belong to SLURM, and they go on when the command ends.
    """
    return sweep.hydra.launcher["_target_"].rpartition(".")[2] not in _UNWATCHED


def signals_asked(sweep: Path, call: str) -> list[signal.Signals]:
    """The signals that the command of this call has received, in order. Empty where it has received none."""
    try:
        names = _file(sweep, call).read_text().split()
    except OSError:
        return []
    return [_NAMES[name] for name in names if name in _NAMES]


class SweepStop:
    """What a signal to the command does while a launcher runs the jobs of the call `call` in other processes.

    `still_running` says whether any job of the call is running.
    """

    def __init__(self, sweep: Path, call: str, still_running: Callable[[], bool]) -> None:
        self._sweep, self._call, self._still_running = sweep, call, still_running
        self.received: list[signal.Signals] = []
        """The signals received so far, in order."""

    @property
    def code(self) -> int:
        """The exit code of the command: INTERRUPTED, or STOPPED after a second Ctrl-C."""
        return STOPPED if self.received.count(signal.SIGINT) > 1 else INTERRUPTED

    @contextmanager
    def listening(self) -> Iterator[None]:
        """In the block, the first of `jobs.SIGNALS` stops the jobs, waits until all have ended, and raises SystemExit.

        The exit code is `code`. A later signal is only told to the jobs, which end at a second Ctrl-C without saving.
        """
        before = {number: signal.signal(number, self._on_signal) for number in heeded()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.received.append(signal.Signals(number))
        try:
            file = _file(self._sweep, self._call)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as stream:
                stream.write(f"{self.received[-1].name}\n")
        except OSError as error:
            _say(f"error: the jobs cannot be told to stop: {file} cannot be written ({error.strerror})")
        if len(self.received) > 1:
            return  # the first signal's handler is waiting
        _say(f"{self.received[0].name}: waiting until the jobs have saved; a second Ctrl-C ends them at once")
        stopped_at = None
        while self._still_running():
            time.sleep(_LOOK)
            if self.code == STOPPED:
                stopped_at = stopped_at or time.monotonic()
                if time.monotonic() - stopped_at > _AT_ONCE:
                    break
        raise SystemExit(self.code)


def go_on_apart() -> None:
    """Fork. The child returns, in a process group of its own; this process passes signals on and exits as the child.

    A terminal, and `kill` of a process group, then signal this process alone. Without this, Ctrl-C would also reach the
    processes of the launcher: submitit kills its job a second later, and joblib kills all of its jobs as soon as one of
    its processes has died. If this process is killed, the child gets SIGTERM.
    """
    parent_lives, held_by_parent = os.pipe()  # carries nothing: the child sees it close when the parent dies
    sys.stdout.flush()
    sys.stderr.flush()
    signals = heeded()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # signals wait until the parent has its handlers
    child = os.fork()
    if child == 0:
        os.close(held_by_parent)
        os.setpgid(0, 0)

        def end_with_parent() -> None:
            os.read(parent_lives, 1)  # returns when the parent's end closes
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=end_with_parent, daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return
    os.close(parent_lives)

    def pass_on(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):  # the child has ended already
            os.kill(child, number)

    for number in signals:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)  # as a shell does for a process that a signal has ended


def _file(sweep: Path, call: str) -> Path:
    return sweep / "calls" / call / _FILE


def _say(line: str) -> None:
    """Print a line from a signal handler, where `print` could fail because it had itself been interrupted."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))
