"""Names that stand beside numbers everywhere, from the scoring to the report."""

from __future__ import annotations


def protocol_name(direction: str, mode: str | None, shots: int | None, gallery: str, reading: str | None) -> str:
    """What is query, what is gallery and how it is drawn, in words; what does not apply is left out."""
    return " ".join(part for part in (direction, mode, f"{shots}-shot" if shots else None, gallery, reading) if part)
