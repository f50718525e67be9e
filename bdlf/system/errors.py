"""The kinds of errors that are the user's to mend."""

from __future__ import annotations

from collections.abc import Collection


class InputError(ValueError):
    """Bad input. The message is a single line that names the thing and the remedy; commands print just that."""


class StorageError(InputError):
    """A file cannot be written: the disk is full, read-only, over quota or absent. Nothing written before is lost."""


class HeldError(InputError):
    """Another process holds what only one may write."""


def check_choice(option: str, value: object, known: Collection[object]) -> None:
    """Raise `InputError` naming `option` and the known values unless `value` is one of them."""
    if value not in known:
        raise InputError(f"{option}={value!r} is not known; known: {', '.join(map(str, known))}")
