"""The errors that a user can correct. Commands print their message as one line, without a traceback."""

from __future__ import annotations

from collections.abc import Collection


class InputError(ValueError):
    """Bad input. The message is one line that names what is wrong and what to do about it."""


class StorageError(InputError):
    """A file cannot be written: the disk is full, read-only, over quota or absent. Earlier files are still whole."""


class HeldError(InputError):
    """Another process holds the lock of files that only one process may write at a time."""


def check_choice(option: str, value: object, known: Collection[object]) -> None:
    """Raise `InputError` unless `value` is one of the `known` values. The message names `option` and all of them."""
    if value not in known:
        raise InputError(f"{option}={value!r} is not known; known: {', '.join(map(str, known))}")
