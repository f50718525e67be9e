"""Gives the numbers that the paper prints, and decides whether ours may be compared with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from bdlf.datasets import DATASETS
from bdlf.datasets.protocol import protocol_name

SAME = "the same"
"""The value of `paper_protocol` if our protocol is the paper's in everything that is known of the latter."""
_PRINTED = ("dataset", "mode", "shots", "direction", "reading")
_OF_METHODS = ("table1", "roof")
"""Tables that print numbers for several protocols."""


@cache
def published() -> pd.DataFrame:
    """Published numbers: table, row, venue, dataset, mode, shots, direction, reading, rank1, mAP, source, remark.

    The lines of `roof` are of other sources than the paper: of AGW, which Table 1 leaves out, and of methods for which
    another source has other numbers than Table 1. An empty mAP is not known to us. The other lines are the paper's.
    `remark` holds sentences that a reader of the number must know. The line of Figure 4 has no numbers, because the
    paper prints none.
    """
    return pd.read_csv(Path(__file__).with_name("published.csv"), dtype={"shots": "Int64"}, keep_default_na=True)


def methods() -> list[Mapping[str, Any]]:
    """The published methods of Table 1, in its order."""
    others = published().query("table == 'table1'")
    methods: list[Mapping[str, Any]] = others.drop_duplicates("row").to_dict("records")
    return methods


def printed() -> list[Mapping[Any, Any]]:
    """The published numbers of all methods, of any source: those of Table 1 first."""
    return list(_entries("roof"))


def remarks(table: str, card: Mapping[str, Any]) -> list[str]:
    """The remarks on the numbers that `paper` gives beside `card`, as single sentences without repetition."""
    entries = [entry for entry in _entries(table) if table not in _OF_METHODS or _printed(entry, card)]
    sentences = [one for entry in entries for one in re.split(r"(?<=\.) ", entry["remark"] or "")]
    return [one for one in dict.fromkeys(sentences) if one]


def paper(table: str, row: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """The published numbers of a row beside a cell of ours: `paper_rank1`, `paper_mAP` in percent and `paper_protocol`.

    `card` says what the cell is: dataset, splits (RegDB: those whose runs are in the cell), mode, shots, direction,
    gallery, reading, feature, flip, selection, and trained_identities (None if it is unknown).

    `paper_protocol` is SAME only if all of this is as in the paper. Otherwise it names what differs, as in `gallery
    official, not agw; split 3 of 10`. The paper may print no number for the cell's dataset, mode, shots, direction and
    reading. All three values are then None in Table 1; the other tables give their only number and name its protocol.
    The table `roof` has the numbers of Table 1, and those of other sources for methods that Table 1 leaves out.

    The paper states dataset, direction and mode, and refers to AGW's evaluation for RegDB's ten splits. It does not
    state the rest. For `shots`, `gallery` (SYSU-MM01 and LLCM: one image of each identity and camera, drawn as AGW
    does; RegDB: all) and `trained_identities` we take what is usual in the field. For `feature` (after the BN-neck) and
    `flip` (averaged with the mirrored image) we take what the code of the paper's lineage does (CAJ, DEEN, SGIEL).
    `selection` is ours: the public code of that lineage keeps the epoch that is best on the test set. A number that is
    chosen in this way cannot be compared with any other, so only the last epoch counts as the same.
    """
    entries = [entry for entry in _entries(table) if entry["row"] == row]
    for entry in entries:
        if _printed(entry, card):
            return _numbers(entry, "; ".join(_different(card)) or SAME)
    if len(entries) != 1:  # there is no number, or it is Table 1, where it is unclear which number to show
        return {"paper_rank1": None, "paper_mAP": None, "paper_protocol": None}
    (entry,) = entries
    words = protocol_name(entry["direction"], entry["mode"], entry["shots"], "", entry["reading"])
    return _numbers(entry, f"{entry['dataset']} {words}")


@cache
def _entries(table: str) -> list[dict[Any, Any]]:
    known = published()
    known = known[known["table"].isin(_OF_METHODS if table == "roof" else (table,))].astype(object)
    entries: list[dict[Any, Any]] = known.where(known.notna(), None).to_dict("records")
    return entries


def _printed(entry: Mapping[Any, Any], card: Mapping[str, Any]) -> bool:
    """Whether `entry` is the number that the paper prints for the protocol of `card`."""
    return all(entry[key] == card[key] for key in _PRINTED)


def _numbers(entry: Mapping[Any, Any], protocol: str) -> dict[str, Any]:
    if entry["rank1"] is None:
        return {"paper_rank1": None, "paper_mAP": None, "paper_protocol": None}
    return {"paper_rank1": entry["rank1"], "paper_mAP": entry["mAP"], "paper_protocol": protocol}


def _different(card: Mapping[str, Any]) -> list[str]:
    """Names what differs between the protocol of `card` and the paper's, apart from what the paper's tables print."""
    dataset = DATASETS[card["dataset"]]
    usual = next(iter(dataset.protocol.galleries))
    wanted = {"gallery": usual, "feature": "after_bn", "flip": True, "selection": "last_epoch"}
    found = [f"{key} {_word(card[key])}, not {_word(value)}" for key, value in wanted.items() if card[key] != value]
    numbers = dataset.numbered_splits
    splits = set(card["splits"]) if numbers else set()
    if splits != set(numbers):
        some = f"split{'' if len(splits) == 1 else 's'} {', '.join(map(str, sorted(splits))) or 'unknown'}"
        found.append(f"{some} of {len(numbers)}")
    if card["trained_identities"] != dataset.trained_identities:
        found.append(f"{_word(card['trained_identities'])} identities trained on, not {dataset.trained_identities}")
    return found


def _word(value: Any) -> str:
    if value is None or value != value:
        return "unknown"
    word = f"{value:g}" if isinstance(value, float) else str(value)
    return word.lower() if word in ("True", "False") else word
