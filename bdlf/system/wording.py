"""Prepares texts from outside (names of files, lines of lists, options) for a message."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with control characters and others that a terminal cannot show escaped, as in Python's source."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def shortened(text: str, most: int) -> str:
    """`text`, without its middle where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 2) :]}"
