"""What a command says: on the screen, and in the run's `train.log`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from bdlf.errors import InputError

_ROOT = logging.getLogger("bdlf")
_SHOWN = 5


class _Screen(logging.Handler):
    """Lines above a progress bar, not through it."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(prefix + record.getMessage())


def show_on_screen() -> None:
    """Messages of the package go to the screen from here on; calling it again changes nothing."""
    _ROOT.setLevel(logging.DEBUG)
    if not any(isinstance(handler, _Screen) for handler in _ROOT.handlers):
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
        handler = logging.FileHandler(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another output=") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _ROOT.addHandler(handler)
    try:
        yield
    finally:
        _ROOT.removeHandler(handler)
        handler.close()
