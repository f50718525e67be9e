"""Locks for files that only one process may write at a time. A lock is released when its process ends in any way."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from bdlf.system.errors import HeldError, StorageError

log = logging.getLogger("bdlf")


@contextmanager
def held(file: Path, what: str, *, remedy: str, wait: bool = False) -> Iterator[bool]:
    """Hold an exclusive lock on `file` during the block and remove the file afterwards.

    - `what` names the protected thing in messages.
    - `remedy` ends the message of the `StorageError` that is raised where `file` cannot be created.
    - `wait` decides what happens while another process holds the lock, on this or another host. With `wait`, this is
      logged and the call waits. Without it, `HeldError` is raised; it names the process, its host and since when.

    A file that a killed process has left behind holds no lock: the lock is taken, and that is logged. On a file system
    without locks a warning is logged and the block runs unprotected. The block gets True if it holds the lock.
    """
    held_now, descriptor = False, -1
    try:
        while not _is_open(descriptor, file):  # repeated if the process that held the lock has removed the file
            if descriptor >= 0:
                os.close(descriptor)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                descriptor = -1
                raise StorageError(f"cannot write {what} ({error.strerror}): {remedy}") from error
            held_now = _take(descriptor, file, what, wait=wait)
        if held_now:
            if owner := _owner(descriptor):
                log.info("the lock of %s was left by %s, which is gone", what, owner)
            own = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            with contextlib.suppress(OSError):  # on a full disk the lock works without this information
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(own).encode(), 0)
        yield held_now
    finally:
        if held_now:
            with contextlib.suppress(OSError):  # on a disk that has become read-only the file stays, without a lock
                file.unlink(missing_ok=True)
        if descriptor >= 0:
            os.close(descriptor)


def _is_open(descriptor: int, file: Path) -> bool:
    """Whether `descriptor` is the file that now lies at the path `file`."""
    with contextlib.suppress(OSError):
        return descriptor >= 0 and os.path.samestat(os.fstat(descriptor), os.stat(file))
    return False


def _take(descriptor: int, file: Path, what: str, *, wait: bool) -> bool:
    """Take the lock of the open file. Returns False where its file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner(descriptor) or "another process"
        if not wait:
            raise HeldError(f"{what} is being written by {owner}; wait for it, or stop it") from None
        log.info("waiting for %s, which %s is writing", what, owner)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        log.warning("%s cannot be locked (%s): see that no other process writes %s", file, error.strerror, what)
        return False
    return True


def _owner(descriptor: int) -> str | None:
    """The process that wrote its number into the lock file, in words; None where the file is empty or unreadable."""
    try:
        owner = json.loads(os.pread(descriptor, 1 << 12, 0))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _now() -> str:
    return datetime.now(timezone.utc).astimezone().isoformat(sep=" ", timespec="seconds")
