"""Writes files so that they are either whole or absent: under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from bdlf.system.errors import InputError, StorageError


def with_home(path: str) -> str:
    """`path` with `~` or `~user` at its start replaced by that user's home folder.

    Raises `InputError` where the home folder is not known.
    """
    if not path.startswith("~"):
        return path
    there = os.path.expanduser(path)
    if there == path and not os.path.lexists(path):
        raise InputError(f"{path}: no home folder is known for {path.partition('/')[0]}; give the whole path")
    return there


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a temporary file in the folder of `path`, flush it to disk and rename it to `path`.

    The folder is created if necessary. After any error the file at `path` is unchanged and the temporary file removed.
    Raises `StorageError` where the file cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}; free space or choose another output="
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def remove_leftovers(folder: Path, pattern: str = ".*.tmp") -> None:
    """Remove the temporary files that killed writers have left in `folder`: those whose names match `pattern`.

    No other process may be writing there. Raises `StorageError` where a file cannot be removed.
    """
    for aside in folder.glob(pattern):
        try:
            aside.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"{aside} cannot be removed: {error.strerror}; see to it, or choose another place"
            ) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8 with `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with `write_atomically`. Raises `ValueError` for NaN and infinities, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises `InputError` where the file cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable JSON file ({error}); move the folder away, or run with rerun=true"
        ) from error
