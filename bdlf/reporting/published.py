"""The numbers that the paper prints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from bdlf.naming import protocol_name


@cache
def published() -> pd.DataFrame:
    """The paper's numbers: table, row, venue, dataset, mode, shots, direction, reading, rank1, mAP, source.

    The line of Figure 4 has none: the paper prints no numbers of it.
    """
    return pd.read_csv(Path(__file__).with_name("published.csv"), dtype={"shots": "Int64"}, keep_default_na=True)


def methods() -> list[Mapping[str, Any]]:
    """The published methods of Table 1, in its order."""
    others = published().query("table == 'table1'")
    methods: list[Mapping[str, Any]] = others.drop_duplicates("row").to_dict("records")
    return methods


def remarks(table: str) -> list[str]:
    """What a reader must know of the source of a table's numbers, beyond its name."""
    sources = published().query("table == @table")["source"].drop_duplicates()
    return [source.partition("; ")[2] for source in sources if "; " in source]


def paper(table: str, row: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """The published numbers of a row: of this protocol where it is printed, else of the one that is, which is named."""
    known = published()
    known = known[(known["table"] == table) & (known["row"] == row)]
    empty = {"paper_rank1": None, "paper_mAP": None, "paper_protocol": None}
    if known.empty:
        return empty
    for entry in known.astype(object).where(known.notna(), None).to_dict("records"):
        if all(entry[key] == card[key] for key in ("dataset", "mode", "shots", "direction", "reading")):
            return {"paper_rank1": entry["rank1"], "paper_mAP": entry["mAP"], "paper_protocol": "the same"}
    if len(known) > 1:  # Table 1: another protocol's number would say nothing
        return empty
    entry = known.astype(object).where(known.notna(), None).to_dict("records")[0]
    words = protocol_name(entry["direction"], entry["mode"], entry["shots"], "", entry["reading"])
    return {"paper_rank1": entry["rank1"], "paper_mAP": entry["mAP"], "paper_protocol": f"{entry['dataset']} {words}"}
