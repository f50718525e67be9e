"""Texts from outside (names of files, lines of lists, options) as they are shown to people."""

from __future__ import annotations


def printable(text: str) -> str:
    """What a terminal would obey or cannot show is escaped, as in Python's source."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def shortened(text: str, most: int) -> str:
    """Without the middle, where it has more letters than `most`."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 2) :]}"
