"""Signals that ask a run to stop: it saves first and says that the same command goes on."""

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
    """A signal asked to stop, and nothing is being written."""

    def __init__(self, signal: str) -> None:
        super().__init__(signal)


class Interruption:
    """While it is entered, the first of `jobs.SIGNALS` raises `Interrupted`, within `held` at the end of the block.

    A second Ctrl-C ends the process at once with code 130. Other repeated signals change nothing. In a thread that is
    not the main one, signals are left as they are; so is SIGHUP where `nohup` has it ignored.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        """The name of the signal that has come."""
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
        """A signal only sets `asked`; the end of the block raises `Interrupted` then."""
        with self._set(True):
            yield
        if self.asked:
            raise Interrupted(self.asked)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Inside `held`: what may be given up at any moment."""
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
