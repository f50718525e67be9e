"""What only one process may write at a time; a lock ends with its process, however that ends."""

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
    """Hold `file`, which is there only then, until the block ends; `what` names in messages what it guards.

    Where another process, perhaps on another host, holds it: with `wait`, say so and wait; else raise `HeldError` with
    its number, host and since when. A lock that a process left when it was killed is taken, and that is said. On a
    file system without locks there is a warning, and the block is given False. Raises `StorageError`, which ends in
    `remedy`, where the file cannot be made.
    """
    alone, descriptor = False, -1
    try:
        while not _is_open(descriptor, file):  # or whoever held it has removed it since
            if descriptor >= 0:
                os.close(descriptor)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                descriptor = -1
                raise StorageError(f"cannot write {what} ({error.strerror}): {remedy}") from error
            alone = _take(descriptor, file, what, wait=wait)
        if alone:
            if owner := _owner(descriptor):
                log.info("the lock of %s was left by %s, which is gone", what, owner)
            own = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            with contextlib.suppress(OSError):  # of a full disk: whatever needs room will say so
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(own).encode(), 0)
        yield alone
    finally:
        if alone:
            with contextlib.suppress(OSError):  # of a disk that has become read-only: one that is left holds nothing
                file.unlink(missing_ok=True)
        if descriptor >= 0:
            os.close(descriptor)


def _is_open(descriptor: int, file: Path) -> bool:
    with contextlib.suppress(OSError):
        return descriptor >= 0 and os.path.samestat(os.fstat(descriptor), os.stat(file))
    return False


def _take(descriptor: int, file: Path, what: str, *, wait: bool) -> bool:
    """Whether the lock is held now."""
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
    try:
        owner = json.loads(os.pread(descriptor, 1 << 12, 0))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _now() -> str:
    return datetime.now(timezone.utc).astimezone().isoformat(sep=" ", timespec="seconds")
