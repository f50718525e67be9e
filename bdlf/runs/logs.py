"""What a command says: on the screen, and in the run's `train.log`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from bdlf.system.errors import StorageError

_ROOT = logging.getLogger("bdlf")
_SHOWN = 5


class _Screen(logging.Handler):
    """Lines above a progress bar, not through it."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(prefix + record.getMessage())


class _RunLog(logging.FileHandler):
    """A log that a run can do without: where it cannot be written, that is said once, and the run goes on."""

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
    """Messages of the package go to the screen from here on; calling it again changes nothing.

    Where Hydra has set up logging too (`hydra/job_logging=default`), its handler of the screen shows them, once and in
    its format, and its file is removed: a run keeps `train.log`.
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
    """Say what is wrong with the dataset on disk, the first few in full."""
    for finding in findings[:_SHOWN]:
        _ROOT.warning("%s", finding)
    if findings:
        more = f"{len(findings) - _SHOWN} more; " if len(findings) > _SHOWN else ""
        _ROOT.warning("%spython -m bdlf.check dataset=%s looks closer", more, dataset)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Messages go to `path` too, with their time; debug messages (tracebacks) only there. Appends to an earlier log."""
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
