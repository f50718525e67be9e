"""Table 1, 2, 3 and Figure 4 of the paper, from a tidy frame: one block for each protocol, never mixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bdlf.evaluation.protocols import protocol_name
from bdlf.reporting.bootstrap import RESAMPLES, paired_interval, query_values
from bdlf.reporting.gather import VARIANTS, Gathered
from bdlf.runs.card import COSTS
from bdlf.runs.selection import LAST, RULES

PROTOCOL = ["dataset", "mode", "shots", "direction", "gallery", "reading", "similarity", "feature", "flip"]
BLOCK = [*PROTOCOL, "model", "selection", "family"]
"""What is the same in all of a block's cells."""


@dataclass(frozen=True)
class Layout:
    """A table of the paper: its rows in order, which runs belong to each, and the row that others are compared with."""

    title: str
    rows: tuple[str, ...]
    row_of: Callable[[pd.DataFrame], pd.Series]
    """The row of every run; '' for none."""
    fixed: tuple[str, ...]
    """What else is the same in all of a block's cells."""
    reference: str | None


def _of_full(runs: pd.DataFrame, values: pd.Series) -> pd.Series:
    """`values` of runs of the whole method, '' of others."""
    rows: pd.Series = values.where(runs["variant"] == "full", "")
    return rows


LAYOUTS = {
    "table1": Layout(
        "Table 1, the whole method",
        ("full",),
        lambda runs: _of_full(runs, runs["variant"]),
        ("stage", "blocks"),
        None,
    ),
    "table2": Layout(
        "Table 2, components", tuple(VARIANTS.values()), lambda runs: runs["variant"], ("stage", "blocks"), "baseline"
    ),
    "table3": Layout(
        "Table 3, the stage of DFE",
        tuple(f"stage{stage}" for stage in range(1, 5)),
        lambda runs: _of_full(runs, "stage" + runs["stage"].astype(str)),
        ("blocks",),
        "stage3",
    ),
    "figure4": Layout(
        "Figure 4, the number of invertible blocks",
        tuple(f"blocks{blocks}" for blocks in range(1, 9)),
        lambda runs: _of_full(runs, "blocks" + runs["blocks"].astype(str)),
        ("stage",),
        "blocks6",
    ),
}
_PAPER = {"stage": 3, "blocks": 6}


@dataclass(frozen=True)
class Block:
    """One table of one protocol."""

    title: str
    notes: tuple[str, ...]
    table: pd.DataFrame
    """Columns `row`, `runs`, figures with their std over runs, differences, published numbers, costs."""


@cache
def published() -> pd.DataFrame:
    """The paper's numbers: table, row, venue, dataset, mode, shots, direction, reading, rank1, mAP, source."""
    return pd.read_csv(Path(__file__).with_name("published.csv"), dtype={"shots": "Int64"}, keep_default_na=True)


def blocks_of(gathered: Gathered, name: str, *, least: int = 1) -> Iterator[Block]:
    """The blocks of table `name` that have runs in `least` rows: the largest family of runs and the paper's stage and
    number of blocks first.

    A block shows the averaged model where runs have one, else the raw one.
    """
    layout = LAYOUTS[name]
    frame = gathered.frame
    if frame.empty:
        return
    frame = frame.assign(row=layout.row_of(frame))
    frame = frame[frame["row"].isin(layout.rows)]
    has_average = frame.groupby("path")["model"].transform(lambda models: (models == "ema").any())
    frame = frame[(frame["model"] == "ema") | ~has_average.astype(bool)]
    families = list(frame.groupby("family")["path"].nunique().sort_values(ascending=False, kind="stable").index)
    keys = [*BLOCK, *layout.fixed]
    paper = tuple(_PAPER[name] for name in layout.fixed)

    def order(item: tuple[Any, pd.DataFrame]) -> tuple[int, bool, int]:
        *_, selection, family = item[0][: len(BLOCK)]
        return families.index(family), tuple(item[0][len(BLOCK) :]) != paper, list(RULES).index(selection)

    groups = sorted(frame.groupby(keys, dropna=False, sort=False), key=order)
    for key, rows in groups:
        if rows["row"].nunique() >= least:
            card = dict(zip(keys, (None if pd.isna(value) else value for value in key), strict=True))
            yield _block(gathered, name, layout, card, rows, families)


def _block(
    gathered: Gathered, name: str, layout: Layout, card: dict[str, Any], runs: pd.DataFrame, families: list[str]
) -> Block:
    wanted = sorted(set(zip(runs["seed"], runs["split"].fillna(0).astype(int), strict=True)))
    values = {path: _values(path, row) for path, row in zip(runs["path"], runs["per_query"], strict=True)}
    open_rows = _unfinished(gathered, layout, card)
    lines = []
    if name == "table1":
        others = [_line(row, card, "table1") for row in _methods()]
        lines += others if any(line["paper_protocol"] for line in others) else []
    for row in layout.rows:
        own = runs[runs["row"] == row]
        lines.append(_own_line(row, own, wanted, open_rows.get(row, 0), card, name))
        if layout.reference and row != layout.reference and len(own):
            lines[-1] |= _differences(own, runs[runs["row"] == layout.reference], values)
    words = protocol_name(*(card[key] for key in ("direction", "mode", "shots", "gallery", "reading")))
    notes = [f"{card['model']} model, feature {card['feature']}, {card['similarity']} similarity, flip averaging "
             f"{'on' if card['flip'] else 'off'}; {card['selection']}: {RULES[card['selection']]}"]  # fmt: skip
    if card["selection"] != LAST:
        notes.append("the epoch differs from run to run")
    if name == "table1" and len(lines) == 1:
        notes.append("Table 1 of the paper has no such protocol")
    if layout.reference:
        notes.append(
            f"difference to {layout.reference}: mean over the pairs of runs of one seed and split, with the 95 % "
            f"interval of {RESAMPLES} paired bootstrap resamples over runs and queries"
        )
    title = f"{layout.title}: {card['dataset']}, {words}" + (
        "" if card["selection"] == LAST else f", {card['selection']}"
    )
    for key in layout.fixed:
        title += f", {key} {card[key]}" if card[key] != _PAPER[key] else ""
    place = families.index(card["family"])
    if differing := _differing(gathered.families[card["family"]], gathered.families[families[0]]):
        title += f", settings {place + 1}"
        notes.append(f"these runs differ from those of the largest family in {differing}")
    return Block(title, tuple(notes), pd.DataFrame(lines))


def _values(path: str, row: int) -> dict[str, np.ndarray]:
    file = Path(path) / "per_query.npz"
    if not file.is_file():
        return {}
    with np.load(file, allow_pickle=False) as arrays:
        return query_values(arrays, row)


def _unfinished(gathered: Gathered, layout: Layout, card: Mapping[str, Any]) -> dict[str, int]:
    left = gathered.unfinished
    if left.empty:
        return {}
    dataset = str(card["dataset"]).removesuffix(" (synthetic)")
    left = left[(left["family"] == card["family"]) & (left["dataset"] == dataset)]
    left = left[(left[list(layout.fixed)] == [card[key] for key in layout.fixed]).all(axis=1)]
    return {str(row): int(count) for row, count in layout.row_of(left).value_counts().items()} if len(left) else {}


def _line(row: Mapping[str, Any], card: Mapping[str, Any], table: str) -> dict[str, Any]:
    return {"row": row["row"], "runs": row["venue"], **_paper(table, row["row"], card)}


def _methods() -> list[Mapping[str, Any]]:
    """The published methods of Table 1, in its order."""
    others = published().query("table == 'table1'")
    methods: list[Mapping[str, Any]] = others.drop_duplicates("row").to_dict("records")
    return methods


def _own_line(
    row: str,
    own: pd.DataFrame,
    wanted: list[tuple[int, int]],
    unfinished: int,
    card: Mapping[str, Any],
    table: str,
) -> dict[str, Any]:
    have = own.drop_duplicates("path")
    runs = f"{len(have)} of {len(wanted)}" if len(have) else "no run"
    runs += f", {unfinished} unfinished" if unfinished else ""
    line: dict[str, Any] = {"row": row if table != "table1" else "this code", "runs": runs}
    for figure in ("rank1", "mAP", "mINP"):
        line[figure] = have[figure].mean() if len(have) else None
        line[f"{figure}_std"] = have[figure].std(ddof=1) if len(have) > 1 else None
    line |= _paper(table, row if table != "table1" else "BDLF", card)
    for figure in ("rank1", "mAP"):
        same = line["paper_protocol"] == "the same" and line[figure] is not None
        line[f"{figure}_to_paper"] = line[figure] - line[f"paper_{figure}"] if same else None
    return line | {name: have[name].mean() if len(have) else None for name in COSTS}


def _paper(table: str, row: str, card: Mapping[str, Any]) -> dict[str, Any]:
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


def _differences(
    own: pd.DataFrame, reference: pd.DataFrame, values: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    key = ["seed", "split"]
    pairs = own.merge(reference, on=key, suffixes=("", "_reference"))
    pairs = pairs[
        [bool(values[a]) and bool(values[b]) for a, b in zip(pairs["path"], pairs["path_reference"], strict=True)]
    ]
    line: dict[str, Any] = {"pairs": len(pairs)}
    for figure in ("rank1", "mAP") if len(pairs) else ():
        apart = [
            values[mine][figure] - values[theirs][figure]
            for mine, theirs in zip(pairs["path"], pairs["path_reference"], strict=True)
        ]
        interval = paired_interval(apart, pairs["split"].fillna(0).astype(int).tolist())
        line |= {f"{figure}_difference": interval.mean, f"{figure}_low": interval.low, f"{figure}_high": interval.high}
    return line


def _differing(tree: Mapping[str, Any], main: Mapping[str, Any], prefix: str = "") -> str:
    """`schedule.epochs=5 (not 11), ...` where two families differ; None is the schema's default."""
    words = []
    for key in sorted({*tree, *main}):
        one, other = tree.get(key), main.get(key)
        if isinstance(one, dict) or isinstance(other, dict):
            words.append(_differing(one or {}, other or {}, f"{prefix}{key}."))
        elif one != other:
            words.append(f"{prefix}{key}={one} (not {other})")
    return ", ".join(word for word in words if word)
