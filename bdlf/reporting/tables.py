"""Makes the blocks of a table from gathered runs: one block for each family, way of scoring and set of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bdlf.reporting import roof
from bdlf.reporting.block import Block
from bdlf.reporting.comparison import FIGURES, Queries, adjust, compare, read_queries
from bdlf.reporting.families import ROOF, Asked, Family, Table, differing
from bdlf.reporting.gather import ORIGIN, Gathered
from bdlf.reporting.intervals import Estimate
from bdlf.reporting.parts import PAPER, Part, parts_of, repetitions
from bdlf.reporting.planning import power_note
from bdlf.reporting.published import methods, paper, remarks
from bdlf.runs.card import COSTS
from bdlf.runs.record import protocol
from bdlf.runs.selection import LAST, RULES

FEATURE = "after_bn"
"""The feature that is scored by default. The title of a block names another feature, but not this one."""


def blocks_of(gathered: Gathered, table: Table, *, least: int = 1, main_only: bool = False) -> Iterator[Block]:
    """The blocks of a table. `parts_of` decides which there are and which runs stand in each, by the same arguments.

    After its blocks the table of all methods has blocks of published numbers.
    """
    parts = parts_of(gathered, table, least=least, main_only=main_only)
    for part in parts:
        yield _block(part, next(one.family for one in parts if one.family.recipe == part.family.recipe))
    if table.name == ROOF:
        yield from roof.published_blocks(parts)


@dataclass
class Comparison:
    """The lines of a block, and what was found when its rows were compared."""

    reference: str | None
    """The row that the others are compared with; None if the table compares nothing or lacks that row."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """A line for each row, with the columns of `bdlf.reporting.block.Block.table`."""
    estimates: list[Estimate] = field(default_factory=list)
    """The estimates of the differences in mAP."""
    notes: list[str] = field(default_factory=list)
    """Sentences that must stand below the table."""
    problems: list[str] = field(default_factory=list)
    """What the user must be warned of: runs whose figures of single queries cannot be used."""


def compared(part: Part) -> Comparison:
    """Compares the rows of a block with its reference row."""
    runs, found = part.runs, Comparison(_reference(part))
    of_row = {str(name): own for name, own in runs.groupby("row", sort=False)}
    left = {str(name): own for name, own in part.left.groupby("row", sort=False)}
    queries: dict[str, dict[tuple[int, int], Queries | None]] = {}
    if found.reference is not None and len(of_row) > 1:
        queries = {name: _queries_of(own, found.problems) for name, own in of_row.items()}
    for name, asked in part.family.rows.items():
        own = of_row.get(name, runs[:0])
        if own.empty and not part.table.gaps and name not in left:
            continue
        line = _own_line(part, name, asked, own, left.get(name, part.left[:0]))
        if queries and found.reference in queries and name != found.reference and len(own):
            differences, estimates = compare(queries[name], queries[found.reference])
            line |= differences
            found.estimates += [estimates["mAP"]] if "mAP" in estimates else []
            found.notes += _pairing_notes(name, line, len(own), estimates)
        found.lines.append(line)
    single = [line["row"] for line in found.lines if line.get("pairs") == 1]
    if single:
        found.notes.append(
            f"A single pair of runs stands behind the interval of {', '.join(single)}: "
            "the noise of training is not in it."
        )
    found.notes += _origin_notes(runs)
    adjust(found.lines)
    return found


def _queries_of(runs: pd.DataFrame, problems: list[str]) -> dict[tuple[int, int], Queries | None]:
    """The queries of each run by its seed and split; None where they cannot be used, which `problems` then says."""
    columns = zip(repetitions(runs), runs["path"], runs["per_query"], runs["queries"], strict=True)
    return {turn: read_queries(path, row, count, problems) for turn, path, row, count in columns}


def _block(part: Part, main: Family) -> Block:
    table, family, runs = part.table, part.family, part.runs
    found = compared(part)
    different = differing(family.common, main.common)
    notes = _leading_notes(part, found.reference) + found.notes
    notes += power_note(found.estimates, runs, len(found.lines))
    notes += roof.recipe_notes(family) if table.name == ROOF else _paper_notes(part)
    if different:
        notes.append(f"These runs differ from those of the first block in {different}.")
    if part.images:
        prints = ", ".join(sorted({fingerprint[:8] for fingerprint in runs["fingerprint"]}))
        count = runs["path"].nunique()
        found.problems.append(
            f"{part.title}: {count} {'runs have' if count > 1 else 'run has'} other images (dataset fingerprint "
            f"{prints}) than most runs; such runs stand in a block of their own and are not compared with the others"
        )
        notes.append(
            f"The images of these runs (fingerprint {prints}) are not those of most runs; never compare the two."
        )
    lines = [*_published_lines(part), *found.lines]
    title = _title(part, different)
    return Block(
        title, table.keys, pd.DataFrame(lines), tuple(notes), _card(part), found.reference, tuple(found.problems)
    )


def _paper_notes(part: Part) -> list[str]:
    return [f"Of the paper: {remark}" for remark in remarks(part.table.name, part.card)]


def _reference(part: Part) -> str | None:
    """The row that the others are compared with; None if the table compares nothing or has no such row."""
    wanted = part.table.reference
    if wanted is None:
        return None
    present = [name for name in part.family.rows if (part.runs["row"] == name).any()]
    if wanted == "":
        return present[0]
    named = [name for name, asked in part.family.rows.items() if wanted in (name, asked.alias)]
    return named[0] if named else None


def _title(part: Part, different: str) -> str:
    title = f"{part.title}: {part.card['dataset']}"
    words = protocol(part.card)
    if words:
        title += f", {words}"
    if part.card["selection"] != LAST:
        title += f", {part.card['selection']} ({RULES[part.card['selection']]})"
    for key in part.table.fixed:
        value = part.family.common.get(key, PAPER[key])
        title += f", {key.removeprefix('dfe.')} {value}" if value != PAPER[key] else ""
    title += "" if part.card["flip"] else ", flip averaging off"
    title += f", feature {part.card['feature']}" if part.card["feature"] != FEATURE else ""
    title += f", other images {part.images}" if part.images else ""
    return title + (", other settings" if different else "")


def _leading_notes(part: Part, reference: str | None) -> list[str]:
    card = part.card
    both = "the averaged model of runs that keep one, else the raw one"
    model = {"ema": "the averaged model", "raw": "the raw model"}.get(card["reported"], both)
    flip = "on" if card["flip"] else "off"
    notes = [
        f"Shown: {model}, feature {card['feature']}, {card['similarity']} similarity, flip averaging {flip}; "
        f"{card['selection']}: {RULES[card['selection']]}."
    ]
    if card["selection"] != LAST:
        notes.append("The epoch differs from run to run.")
    has_runs = reference is not None and bool((part.runs["row"] == reference).any())
    if has_runs and part.runs["row"].nunique() > 1:
        notes.append(
            f"Differences are to {reference}: the mean over pairs of runs of one seed and split, with a 95 % interval "
            "that takes runs and identities as random (two-way analysis of variance)."
        )
    elif reference is not None and not has_runs:
        notes.append(f"The row {reference} has no run, so no difference is formed.")
    elif part.table.reference and reference is None:
        notes.append(f"No row here is {part.table.reference}, so no difference is formed.")
    return notes


def _card(part: Part) -> tuple[tuple[str, str], ...]:
    runs, card = part.runs, part.card
    prints = ", ".join(dict.fromkeys(fingerprint[:8] for fingerprint in runs["fingerprint"]))
    trained = ", ".join(f"{number:.0f}" for number in sorted(runs["trained_identities"].dropna().unique()))
    splits = ", ".join(map(str, sorted(runs["split"].dropna().unique())))
    named = {
        "dataset": card["dataset"],
        "fingerprint": prints,
        **({"splits": splits} if splits else {}),
        **{key: card[key] for key in ("direction", "mode", "shots", "gallery", "reading")},
        "identities trained on": trained or None,
        **{key: card[key] for key in ("similarity", "feature")},
        "flip averaging": "on" if card["flip"] else "off",
        "model": card["reported"],
        "epoch": f"{card['selection']}: {RULES[card['selection']]}",
        "queries": ", ".join(f"{v} with a match of {q}" for q, v in _counts(runs)),
    }
    return tuple((name, str(value)) for name, value in named.items() if value is not None)


def _counts(runs: pd.DataFrame) -> list[tuple[int, int]]:
    """Each pair of numbers of queries and of queries with a match that the runs have."""
    return list(dict.fromkeys(zip(runs["queries"], runs["valid_queries"], strict=True)))


def _published_lines(part: Part) -> list[dict[str, Any]]:
    """The lines of the published methods, for Table 1 alone and only if the paper has numbers for this protocol."""
    if part.table.name != "table1":
        return []
    card = _paper_card(part.card, part.runs)
    lines = [{"row": row["row"], "runs": row["venue"], **paper("table1", row["row"], card)} for row in methods()]
    return lines if any(line["paper_protocol"] for line in lines) else []


def _own_line(part: Part, name: str, asked: Asked, own: pd.DataFrame, left: pd.DataFrame) -> dict[str, Any]:
    count = f"{len(own)} of {len(part.wanted)}" if len(own) else "no run"
    line: dict[str, Any] = {"row": name, **asked.marks}
    line["runs"] = ", ".join([count, *map(_gap, left.to_dict("records"))])
    figures = own[["rank1", "mAP", "mINP", *COSTS]]
    means, spreads = figures.mean(), figures.std(ddof=1)
    if part.table.name == "table1":
        line["row"] = "this code"
    for figure in ("rank1", "mAP", "mINP"):
        line[figure] = means[figure] if len(own) else None
        line[f"{figure}_std"] = spreads[figure] if len(own) > 1 else None
    if part.table.name != "by":
        card = _paper_card(part.card, own if len(own) else part.runs)
        printed = {"table1": "BDLF", ROOF: name.upper()}.get(part.table.name, name)
        line |= paper(part.table.name, printed, card)
        for figure in FIGURES:
            same = line["paper_protocol"] == "the same" and line[figure] is not None
            line[f"{figure}_to_paper"] = line[figure] - line[f"paper_{figure}"] if same else None
    return line | {cost: means[cost] if len(own) else None for cost in COSTS}


def _paper_card(card: Mapping[str, Any], have: pd.DataFrame) -> dict[str, Any]:
    """The card as `bdlf.reporting.published.paper` takes it: with the splits and the identities trained on."""
    trained = have["trained_identities"].unique().tolist()
    splits = {int(split) for split in have["split"].dropna()}
    return {**card, "splits": splits, "trained_identities": trained[0] if len(trained) == 1 else None}


def _gap(run: Mapping[Any, Any]) -> str:
    """What is wrong with a run that has no usable result, as in `seed 2 unfinished after 5 epochs`."""
    split = f" split {run['split']:.0f}" if pd.notna(run["split"]) else ""
    after = ""
    if pd.notna(run["epochs"]):
        after = f" after {run['epochs']:.0f} epoch{'' if run['epochs'] == 1 else 's'}"
    return f"seed {run['seed']}{split} {run['state']}{after}"


def _pairing_notes(name: str, line: Mapping[str, Any], runs: int, found: Mapping[str, Estimate]) -> list[str]:
    notes = []
    if line["pairs"] < runs:
        notes.append(
            f"The difference of {name} is of {line['pairs']} of its {runs} runs; the others have no partner of the "
            "same seed and split, or no figures of single queries."
        )
    if line["pairs"] and not found:
        notes.append(f"The difference of {name} has no interval: its queries are of a single identity.")
    return notes


def _origin_notes(runs: pd.DataFrame) -> list[str]:
    """Notes on the code of the runs.

    They name the rows whose runs come from different code, say if the rows come from different commits, and count the
    runs that were made with uncommitted changes.
    """
    notes = []
    known = runs[["row", *ORIGIN]].assign(**{key: runs[key].fillna("unknown").astype(str) for key in ORIGIN})
    mixed = known.groupby("row", sort=False)[list(ORIGIN)].nunique() > 1
    for name in mixed.index[mixed.any(axis=1)]:
        words = [_unlike(known[known["row"] == name], key) for key in ORIGIN if mixed.loc[name, key]]
        notes.append(f"The runs of {name} come from different code: {'; '.join(words)}.")
    commits = known["commit"].unique()
    if len(commits) > 1 and not mixed["commit"].any():
        notes.append(f"The rows come from different commits: {', '.join(commit[:8] for commit in commits)}.")
    dirty = int((known["dirty"] == "True").sum())
    if dirty:
        notes.append(f"{dirty} of {len(runs)} runs were made with uncommitted changes to the code.")
    return notes


def _unlike(own: pd.DataFrame, key: str) -> str:
    """How often each value of a column of ORIGIN occurs among the runs, in words."""
    name = {"commit": "commits", "dirty": "uncommitted changes", "versions": "versions"}[key]
    counts = own[key].value_counts()
    shown = [f"{str(value)[:8] if key == 'commit' else value} ({count})" for value, count in counts.items()]
    return f"{name} {', '.join(shown)}"
