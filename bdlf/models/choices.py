"""One way to refuse an option that is not known."""

from __future__ import annotations

from collections.abc import Collection

from bdlf.errors import InputError


def check_choice(option: str, value: object, known: Collection[object]) -> None:
    """Raise `InputError` naming `option` and the known values unless `value` is one of them."""
    if value not in known:
        raise InputError(f"{option}={value!r} is not known; known: {', '.join(map(str, known))}")
