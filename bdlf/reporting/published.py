"""The numbers that the paper prints, and whether ours may be compared with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from bdlf.datasets.naming import protocol_name

SAME = "the same"
"""`paper_protocol` where everything that is known of the paper's protocol holds for ours."""
SPLITS = frozenset(range(1, 11))
"""RegDB's splits; the paper prints the mean of all ten."""
_PRINTED = ("dataset", "mode", "shots", "direction", "reading")
_GALLERY = {"sysu": "agw", "regdb": "all", "llcm": "agw"}
_IDENTITIES = {"sysu": 395, "regdb": 206, "llcm": 713}


@cache
def published() -> pd.DataFrame:
    """The paper's numbers: table, row, venue, dataset, mode, shots, direction, reading, rank1, mAP, source, remark.

    `remark` holds whole sentences that a reader of the number must know. The line of Figure 4 has no numbers: the paper
    prints none.
    """
    return pd.read_csv(Path(__file__).with_name("published.csv"), dtype={"shots": "Int64"}, keep_default_na=True)


def methods() -> list[Mapping[str, Any]]:
    """The published methods of Table 1, in its order."""
    others = published().query("table == 'table1'")
    methods: list[Mapping[str, Any]] = others.drop_duplicates("row").to_dict("records")
    return methods


def remarks(table: str, card: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the numbers that `paper` gives beside `card`: whole sentences, each once."""
    entries = [entry for entry in _entries(table) if table != "table1" or _printed(entry, card)]
    sentences = [one for entry in entries for one in re.split(r"(?<=\.) ", entry["remark"] or "")]
    return [one for one in dict.fromkeys(sentences) if one]


def paper(table: str, row: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """The published numbers of a row beside a cell of ours: `paper_rank1`, `paper_mAP` in percent and `paper_protocol`.

    `card` says what the cell is: dataset, splits (RegDB: those whose runs are in the cell), mode, shots, direction,
    gallery, reading, feature, flip, selection, trained_identities (None where it is unknown).

    `paper_protocol` is SAME only where all of this is the paper's, else it names what differs, as in `gallery official,
    not agw; split 3 of 10`. Where the paper prints no number for the cell's dataset, mode, shots, direction and
    reading, Table 1 gives None for all three, and the other tables give their only number and name its protocol.

    The paper states dataset, direction and mode, and refers to AGW's evaluation for RegDB's ten splits. It is silent on
    the rest. `shots`, `gallery` (SYSU-MM01 and LLCM: one image of each identity and camera, drawn as AGW does; RegDB:
    all) and `trained_identities` are the field's usual ones. `feature` (after the BN-neck) and `flip` (averaged with
    the mirrored image) are what the code of its lineage does (CAJ, DEEN, SGIEL). `selection` is ours: the public code
    of that lineage keeps the epoch that is best on the test set. A number chosen so cannot be compared with any other,
    so only the last epoch counts as the same.
    """
    entries = [entry for entry in _entries(table) if entry["row"] == row]
    for entry in entries:
        if _printed(entry, card):
            return _numbers(entry, "; ".join(_different(card)) or SAME)
    if len(entries) != 1:  # no number, or Table 1: the number of another protocol would say nothing
        return {"paper_rank1": None, "paper_mAP": None, "paper_protocol": None}
    (entry,) = entries
    words = protocol_name(entry["direction"], entry["mode"], entry["shots"], "", entry["reading"])
    return _numbers(entry, f"{entry['dataset']} {words}")


@cache
def _entries(table: str) -> list[dict[Any, Any]]:
    known = published().query("table == @table").astype(object)
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
    """What of `card` is not as the paper has it, beyond what its table prints."""
    dataset = card["dataset"]
    wanted = {"gallery": _GALLERY[dataset], "feature": "after_bn", "flip": True, "selection": "last_epoch"}
    found = [f"{key} {_word(card[key])}, not {_word(value)}" for key, value in wanted.items() if card[key] != value]
    if dataset == "regdb" and (splits := set(card["splits"])) != SPLITS:
        some = f"split{'' if len(splits) == 1 else 's'} {', '.join(map(str, sorted(splits))) or 'unknown'}"
        found.append(f"{some} of {len(SPLITS)}")
    if (trained := card["trained_identities"]) != _IDENTITIES[dataset]:
        found.append(f"{_word(trained)} identities trained on, not {_IDENTITIES[dataset]}")
    return found


def _word(value: Any) -> str:
    if value is None or value != value:
        return "unknown"
    word = f"{value:g}" if isinstance(value, float) else str(value)
    return word.lower() if word in ("True", "False") else word
