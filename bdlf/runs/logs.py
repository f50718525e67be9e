"""Where the messages of a command go: to the screen, and to the run's `train.log`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from bdlf.system.errors import StorageError

tqdm.set_lock(threading.RLock())  # tqdm's own lock is shared by processes: each worker of joblib leaks its semaphore
_ROOT = logging.getLogger("bdlf")
_SHOWN = 5  # findings about a dataset that are shown in full


class _Screen(logging.Handler):
    """Prints a message above a progress bar, so that the bar is not torn apart."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(prefix + record.getMessage())


class _RunLog(logging.FileHandler):
    """Writes messages to a file. If the file cannot be written, it warns once and the run goes on."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._said:
            self._said = True
            _ROOT.warning("%s cannot be written: %s; lines may be missing there", self.baseFilename, error.strerror)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def show_on_screen() -> None:
    """Show the messages of the package on the screen from here on. Calling this again changes nothing.

    Hydra may have set up logging too (`hydra/job_logging=default`). Then only Hydra's own handler shows the messages,
    in Hydra's format. Hydra's empty log file is removed, because a run keeps its own `train.log`.
    """
    _ROOT.setLevel(logging.DEBUG)
    everything = logging.getLogger()
    shown = False
    for handler in list(everything.handlers):
        if type(handler) is logging.StreamHandler:
            shown = True
            handler.setLevel(max(handler.level, logging.INFO))  # debug messages are for train.log
        elif type(handler) is logging.FileHandler and os.stat(handler.baseFilename).st_size == 0:
            everything.removeHandler(handler)
            handler.close()
            os.unlink(handler.baseFilename)
    if not shown and not any(isinstance(handler, _Screen) for handler in _ROOT.handlers):
        screen = _Screen()
        screen.setLevel(logging.INFO)
        _ROOT.addHandler(screen)


def warn_of(findings: Sequence[str], dataset: str) -> None:
    """Warn of what is wrong with the dataset on disk: the first findings in full, the others by their number."""
    for finding in findings[:_SHOWN]:
        _ROOT.warning("%s", finding)
    if findings:
        more = f"{len(findings) - _SHOWN} more; " if len(findings) > _SHOWN else ""
        _ROOT.warning("%spython -m bdlf.check dataset=%s looks closer", more, dataset)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write the messages of the package, with their times, also to the file `path` during the block.

    Debug messages, such as tracebacks, go only there. An existing file is appended to. Raises StorageError if the file
    cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _RunLog(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}; free space or choose another output="
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _ROOT.addHandler(handler)
    try:
        yield
    finally:
        _ROOT.removeHandler(handler)
        handler.close()
