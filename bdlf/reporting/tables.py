"""Table 1, 2, 3 and Figure 4 of the paper, from a tidy frame: one block for each protocol, never mixed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bdlf.reporting.bootstrap import RESAMPLES, paired_interval, query_values
from bdlf.reporting.gather import PROTOCOL, VARIANTS, Gathered
from bdlf.reporting.published import methods, paper, remarks
from bdlf.runs.card import COSTS
from bdlf.runs.record import protocol
from bdlf.runs.selection import LAST, RULES

BLOCK = [*PROTOCOL, "model", "images", "selection", "family"]
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
    problems: tuple[str, ...] = ()
    """A line for each run whose figures of single queries cannot be used; its means are shown all the same."""


def blocks_of(gathered: Gathered, name: str, *, least: int = 1) -> Iterator[Block]:
    """The blocks of table `name` that have runs in `least` rows: the largest family of runs and the paper's stage and
    number of blocks first. A row alone at another stage or number of blocks is shown only where there is nothing else.

    A block shows the averaged model where runs have one, else the raw one.
    """
    layout = LAYOUTS[name]
    frame = gathered.frame
    if frame.empty:
        return
    frame = frame.assign(row=layout.row_of(frame))
    frame = frame[frame["row"].isin(layout.rows)]
    frame = frame[(frame["model"] == "ema") | ~frame["path"].isin(frame["path"][frame["model"] == "ema"])]
    frame = frame.assign(images=_images(frame))
    families = list(frame.groupby("family")["path"].nunique().sort_values(ascending=False, kind="stable").index)
    keys = [*BLOCK, *layout.fixed]
    printed = tuple(_PAPER[name] for name in layout.fixed)

    def order(item: tuple[Any, pd.DataFrame]) -> tuple[int, bool, int, int]:
        *_, images, selection, family = item[0][: len(BLOCK)]
        fixed = tuple(item[0][len(BLOCK) :])
        return families.index(family), fixed != printed, images, list(RULES).index(selection)

    groups = sorted(frame.groupby(keys, dropna=False, sort=False), key=order)
    compared = [(key, rows) for key, rows in groups if rows["row"].nunique() > 1 or key[len(BLOCK) :] == printed]
    for key, rows in compared or groups:
        if rows["row"].nunique() >= least:
            card = dict(zip(keys, (None if pd.isna(value) else value for value in key), strict=True))
            yield _block(gathered, name, layout, card, rows, families)


def _images(frame: pd.DataFrame) -> pd.Series:
    """Of every row, 0 where its dataset (by fingerprint) is that of most runs of its family and split, else 1, 2 ..."""
    own = ["family", "dataset", "split"]  # each of RegDB's splits has a fingerprint of its own
    frame = frame.assign(split=frame["split"].fillna(0))
    runs = frame.drop_duplicates("path").groupby([*own, "fingerprint"], sort=False).size()
    ranks: pd.Series = runs.sort_values(ascending=False, kind="stable").groupby(level=own).cumcount()
    keys = pd.MultiIndex.from_frame(frame[[*own, "fingerprint"]])
    places: pd.Series = pd.Series(ranks.reindex(keys).to_numpy(), index=frame.index)
    return places


def _block(
    gathered: Gathered, name: str, layout: Layout, card: dict[str, Any], runs: pd.DataFrame, families: list[str]
) -> Block:
    left = _unfinished(gathered, layout, card)
    wanted = _turns(runs) | _turns(left)
    problems: list[str] = []
    values = {}
    if layout.reference:
        columns = [runs[key] for key in ("path", "per_query", "queries")]
        values = {path: _values(path, row, queries, problems) for path, row, queries in zip(*columns, strict=True)}
    lines, notes = [], []
    if name == "table1":
        others = [_line(row, card, "table1") for row in methods()]
        lines += others if any(line["paper_protocol"] for line in others) else []
    for row in layout.rows:
        own = runs[runs["row"] == row]
        lines.append(_own_line(row, own, len(wanted), left[left["row"] == row], card, name))
        if layout.reference and row != layout.reference and len(own):
            lines[-1] |= _differences(own, runs[runs["row"] == layout.reference], values)
            if (pairs := lines[-1]["pairs"]) < len(own):
                why = "the others have no partner, or no figures of single queries"
                notes.append(f"difference of {row}: of {pairs} of its {len(own)} runs; {why}")
    words = protocol(card)
    notes[:0] = [f"{card['model']} model, feature {card['feature']}, {card['similarity']} similarity, flip averaging "
             f"{'on' if card['flip'] else 'off'}; {card['selection']}: {RULES[card['selection']]}"]  # fmt: skip
    if card["selection"] != LAST:
        notes.append("the epoch differs from run to run")
    if name == "table1" and len(lines) == 1:
        notes.append("Table 1 of the paper has no such protocol")
    if layout.reference:
        notes.append(
            f"difference to {layout.reference}: mean over the pairs of runs of one seed and split, with the 95 % "
            f"interval of {RESAMPLES} paired bootstrap resamples over runs and queries (of a single pair, over queries "
            "alone)"
        )
    notes += [f"of the paper: {remark}" for remark in remarks(name)]
    title = f"{layout.title}: {card['dataset']}, {words}" + (
        "" if card["selection"] == LAST else f", {card['selection']} ({RULES[card['selection']]})"
    )
    for key in layout.fixed:
        title += f", {key} {card[key]}" if card[key] != _PAPER[key] else ""
    if card["images"]:
        title += f", other images {card['images']}"
        prints = ", ".join(sorted({fingerprint[:8] for fingerprint in runs["fingerprint"]}))
        notes.append(f"the dataset of these runs (fingerprint {prints}) is not that of most: never compared with them")
    place = families.index(card["family"])
    if differing := _differing(gathered.families[card["family"]], gathered.families[families[0]]):
        title += f", settings {place + 1}"
        notes.append(f"these runs differ from those of the largest family in {differing}")
    return Block(title, tuple(notes), pd.DataFrame(lines), tuple(problems))


def _turns(runs: pd.DataFrame) -> set[tuple[int, int]]:
    """The seeds and splits."""
    return set(zip(runs["seed"], runs["split"].fillna(0).astype(int), strict=True)) if len(runs) else set()


def _values(path: str, row: int, queries: int, problems: list[str]) -> dict[str, np.ndarray]:
    """Figures of every query; none, and a line in `problems`, where a run has lost them."""
    file = Path(path) / "per_query.npz"
    if path.startswith("wandb:"):  # W&B has none
        return {}
    try:
        with np.load(file, allow_pickle=False) as arrays:
            values = query_values(arrays, row)
        if any(value.shape != (queries,) for value in values.values()):
            raise ValueError(f"row {row} is not of {queries} queries")
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        text = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        problems.append(
            f"{file} cannot be read ({text}): no difference for this run; restore it, or run with rerun=true"
        )
        return {}
    return values


def _unfinished(gathered: Gathered, layout: Layout, card: Mapping[str, Any]) -> pd.DataFrame:
    """Runs of a block's rows without a usable result, with their `row`."""
    left = gathered.unfinished
    if left.empty or card["images"]:
        none: pd.DataFrame = pd.DataFrame(columns=["row", "seed", "split", "state", "epochs"])
        return none
    dataset = str(card["dataset"]).removesuffix(" (synthetic)")
    left = left[(left["family"] == card["family"]) & (left["dataset"] == dataset)]
    left = left[(left[list(layout.fixed)] == [card[key] for key in layout.fixed]).all(axis=1)]
    left = left.assign(row=layout.row_of(left))
    known: pd.DataFrame = left[left["row"].isin(layout.rows)]
    return known


def _line(row: Mapping[str, Any], card: Mapping[str, Any], table: str) -> dict[str, Any]:
    return {"row": row["row"], "runs": row["venue"], **paper(table, row["row"], card)}


def _own_line(
    row: str,
    own: pd.DataFrame,
    wanted: int,
    left: pd.DataFrame,
    card: Mapping[str, Any],
    table: str,
) -> dict[str, Any]:
    have = own.drop_duplicates("path")
    runs = ", ".join([f"{len(have)} of {wanted}" if len(have) else "no run", *map(_gap, left.to_dict("records"))])
    line: dict[str, Any] = {"row": row if table != "table1" else "this code", "runs": runs}
    for figure in ("rank1", "mAP", "mINP"):
        line[figure] = have[figure].mean() if len(have) else None
        line[f"{figure}_std"] = have[figure].std(ddof=1) if len(have) > 1 else None
    line |= paper(table, row if table != "table1" else "BDLF", card)
    for figure in ("rank1", "mAP"):
        same = line["paper_protocol"] == "the same" and line[figure] is not None
        line[f"{figure}_to_paper"] = line[figure] - line[f"paper_{figure}"] if same else None
    return line | {name: have[name].mean() if len(have) else None for name in COSTS}


def _gap(run: Mapping[Any, Any]) -> str:
    """`seed 2 unfinished after 5 epochs`"""
    split = f" split {run['split']:.0f}" if pd.notna(run["split"]) else ""
    after = f" after {run['epochs']:.0f} epoch{'' if run['epochs'] == 1 else 's'}" if pd.notna(run["epochs"]) else ""
    return f"seed {run['seed']}{split} {run['state']}{after}"


def _differences(
    own: pd.DataFrame, reference: pd.DataFrame, values: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    key = ["seed", "split"]
    pairs = own.merge(reference, on=key, suffixes=("", "_reference"))
    columns = zip(pairs["path"], pairs["path_reference"], pairs["split"].fillna(0).astype(int), strict=True)
    found = [(values[mine], values[theirs], split) for mine, theirs, split in columns]
    found = [pair for pair in found if pair[0] and pair[1] and len(pair[0]["mAP"]) == len(pair[1]["mAP"])]
    queries = [(split, len(mine["mAP"])) for mine, _, split in found]
    line: dict[str, Any] = {"pairs": len(found)}
    for figure in ("rank1", "mAP") if found else ():
        apart = [mine[figure] - theirs[figure] for mine, theirs, _ in found]
        interval = paired_interval(apart, [queries.index(those) for those in queries])
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
