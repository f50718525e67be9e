"""Turns the signals that ask a run to stop into an exception, so that the run can save its state before it ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bdlf.commandline.jobs import STOPPED, heeded


class Interrupted(BaseException):
    """A signal asked the run to stop. It is raised only where no file is being written."""

    def __init__(self, signal: str) -> None:
        super().__init__(signal)


class Interruption:
    """A context manager: inside it, the first signal of `jobs.SIGNALS` raises `Interrupted`.

    Inside a `held()` block the exception waits for the end of that block. A second Ctrl-C ends the process at once with
    exit code 130; every other later signal is ignored. The handlers are set only in the main thread, because Python
    allows it nowhere else, and not for SIGHUP where `nohup` made the process ignore it.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        """The name of the last signal received, or None."""
        self._holding = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in heeded()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block a signal only sets `asked`. At the end of the block `Interrupted` is raised if one came."""
        with self._set(True):
            yield
        if self.asked:
            raise Interrupted(self.asked)

    @contextmanager
    def released(self) -> Iterator[None]:
        """A block inside a `held()` block, for work that may be given up: a signal raises `Interrupted` at once."""
        with self._set(False):
            yield

    @contextmanager
    def _set(self, holding: bool) -> Iterator[None]:
        before, self._holding = self._holding, holding
        try:
            yield
        finally:
            self._holding = before

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGINT and self.asked == name:
            sys.stderr.write("stopped\n")
            sys.stderr.flush()
            os._exit(STOPPED)
        first, self.asked = self.asked is None, name
        if first and not self._holding:
            raise Interrupted(name)
