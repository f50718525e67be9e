"""What only the table of all methods has: notes on the recipe, and the blocks of published numbers beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bdlf.active import PAPER
from bdlf.datasets.protocol import protocol_name
from bdlf.reporting.block import Block
from bdlf.reporting.composed import OF_A_METHOD, SHARED, method_names
from bdlf.reporting.families import Family
from bdlf.reporting.parts import Part
from bdlf.reporting.published import methods, printed, remarks

_APART = ("dataset", "mode", "shots", "direction")
"""The keys of a card for whose values there is a block of published numbers. Readings stand in one block."""


def recipe_notes(family: Family) -> list[str]:
    """What a reader must know of the recipe before comparing the methods of a block."""
    usual = "Each method has the network, the views, the loss terms and the weights that it has by default."
    if family.recipe == SHARED:
        return [
            f"{usual} Everything else is the recipe of BDLF, which was tuned for BDLF: batch, size, schedule, "
            "augmentation, optimiser.",
            *_exceptions(family),
        ]
    return [
        f"{usual} Each is trained by the recipe of its own code (recipe={family.recipe}). Methods whose recipes differ "
        "in flip averaging stand in different blocks."
    ]


def _exceptions(family: Family) -> list[str]:
    """What the recipe of some methods has otherwise than that of the paper's method."""
    usual, found = family.rows[PAPER].values, dict[str, list[str]]()
    for name, asked in family.rows.items():
        for key, value in asked.values.items():
            if value != usual[key] and not key.startswith(OF_A_METHOD):
                found.setdefault(f"{key}={value} in place of {usual[key]}", []).append(name)
    return [f"Except: {' and '.join(names)} with {what}." for what, names in found.items()]


def published_blocks(parts: Sequence[Part]) -> Iterator[Block]:
    """The published numbers of all methods: a block for each dataset, mode and direction of the runs.

    If nothing is published for any of them, there is one block, for the protocol that the paper's Table 1 begins with.
    """
    entries = printed()
    cards = list({_place(part.card): part.card for part in parts})
    known = [place for place in cards if any(_place(entry) == place for entry in entries)]
    for place in known or [_place(entries[0])][: len(parts)]:
        yield _published(place, [entry for entry in entries if _place(entry) == place], foreign=not known)


def _place(values: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(values[key] for key in _APART)


def _published(place: tuple[Any, ...], entries: Sequence[Mapping[Any, Any]], *, foreign: bool) -> Block:
    dataset, mode, shots, direction = place
    here = {name.upper() for name in method_names()}
    listed = [method["row"] for method in methods()]  # others come first, which are AGW and its variants
    readings = {entry["reading"] for entry in entries}
    lines = []
    for entry in sorted(
        entries, key=lambda entry: (listed.index(entry["row"]) if entry["row"] in listed else -1, entry["row"])
    ):
        marks = {"method": entry["row"], "source": entry["source"], "here": entry["row"] in here}
        marks |= {"reading": entry["reading"]} if len(readings) > 1 else {}
        row = ", ".join(str(part) for part in (entry["row"], entry["source"], entry["reading"]) if part)
        lines.append(
            {"row": row, **marks, "runs": entry["venue"], "paper_rank1": entry["rank1"], "paper_mAP": entry["mAP"]}
        )
    keys = ("method", *(["reading"] if len(readings) > 1 else []), "source", "here")
    notes = ["Each number was reached by a recipe of its own, so their order need not be the order of the methods."]
    if foreign:
        notes = [f"These numbers are of {dataset}, which no run here is of. They are no measure of the runs.", *notes]
    notes += [one for reading in sorted(readings, key=str) for one in remarks("roof", _card(place, reading))]
    words = protocol_name(direction, mode, shots, "", None)
    return Block(f"Table 1, published: {dataset}, {words}", keys, pd.DataFrame(lines), tuple(dict.fromkeys(notes)))


def _card(place: tuple[Any, ...], reading: str | None) -> dict[str, Any]:
    return {**dict(zip(_APART, place, strict=True)), "reading": reading}
