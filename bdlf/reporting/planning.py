"""Says which differences a table could have seen, and plans the runs that it needs to see smaller ones."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count, islice, product
from pathlib import Path

import pandas as pd

from bdlf.active import PAPER, can_decide, foreign_keys
from bdlf.reporting.composed import SHARED, composed, origin
from bdlf.reporting.families import Values, as_typed
from bdlf.reporting.intervals import Estimate
from bdlf.reporting.parts import Part, repetitions
from bdlf.reporting.power import MOST_SEEDS, Components, detectable, pooled, seeds_needed

EXAMPLE = 2.0
"""The difference in points of mAP whose cost in pairs of runs and hours a note states under each table."""


def power_note(estimates: Sequence[Estimate], runs: pd.DataFrame, rows: int) -> list[str]:
    """The note under a table of `rows` rows that says how small a difference in mAP it could have seen.

    The note also says what it would cost to see a difference of EXAMPLE points. It is computed from the variances and
    costs of the table's own runs. If no difference has two pairs of runs, there is no note.
    """
    usable = [one for one in estimates if one.runs > 1]
    if not usable:
        return []
    components = pooled(usable)
    most = max(one.runs for one in usable)
    sentence = (
        f"With {most} pairs of runs a difference in mAP below {detectable(components, most):.1f} points would be "
        f"missed (80 % power, before the adjustment for several comparisons); "
    )
    needed = seeds_needed(components, EXAMPLE)
    if needed is None:
        return [
            sentence + f"{EXAMPLE:g} points are out of reach with these test identities, whatever the number of seeds."
        ]
    seconds = runs.drop_duplicates("path")["train_seconds"].mean()
    missing = max(0, rows * needed - runs["path"].nunique())
    hours = f", about {_hours(missing * seconds)} more at the speed of these runs" if pd.notna(seconds) else ""
    return [sentence + f"{EXAMPLE:g} points need about {needed} pairs{hours}."]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h"


def plan_lines(part: Part, estimates: Sequence[Estimate], points: float) -> Iterator[str]:
    """What it takes to see a difference of `points` in mAP in one block: sentences, then the commands to run."""
    usable = [one for one in estimates if one.runs > 1]
    if not usable:
        yield "No difference of this table has two pairs of runs yet, so nothing is known of the noise; first run"
        needed = 2
    else:
        components: Components = pooled(usable)
        enough = seeds_needed(components, points)
        if enough is None:
            limit = detectable(components, MOST_SEEDS)
            yield (
                f"A difference of {points:g} points of mAP is out of reach with these {components.identities} test "
                f"identities: no number of seeds shows less than {limit:.1f}. More test identities would help."
            )
            return
        needed = enough
    splits = sorted({split for _, split in part.wanted})
    missing = _missing(part, math.ceil(needed / len(splits)), splits)
    if usable:
        yield f"A difference of {points:g} points of mAP needs about {needed} pairs of runs (80 % power, 95 % level);"
    if not missing:
        yield "  the runs are there."
        return
    seconds = part.runs.drop_duplicates("path")["train_seconds"].mean()
    many = "1 run is" if len(missing) == 1 else f"{len(missing)} runs are"
    yield f"  {many} missing, about {_hours(len(missing) * seconds)} at the speed of the runs here:"
    yield from (f"  {command}" for command in commands(part, missing, splits))


def _missing(part: Part, needed: int, splits: Sequence[int]) -> list[tuple[str, int, int]]:
    """Row, seed and split of the runs that are missing until every row has `needed` seeds.

    The seeds that most rows have are completed first, then come new ones.
    """
    done = {(row, *turn) for row, turn in zip(part.runs["row"], repetitions(part.runs), strict=True)}
    rows_with = Counter(seed for _, seed, _ in done)
    known = sorted(rows_with, key=lambda seed: (-rows_with[seed], seed))
    new = (seed for seed in count() if seed not in rows_with)
    seeds = [*known, *islice(new, max(0, needed - len(known)))][:needed]
    turns = product(part.family.rows, sorted(seeds), splits)
    return [turn for turn in turns if turn not in done]


_VARIED = {
    "table2": ("dfe.enabled", "loss.app.enabled", "loss.orth.enabled", "loss.skd.enabled"),
    "table3": ("dfe.stage",),
    "figure4": ("dfe.blocks",),
}
"""Keys that the sweep of each table sets itself."""


def commands(part: Part, missing: Sequence[tuple[str, int, int]], splits: Sequence[int]) -> Iterator[str]:
    """The command lines that make the missing runs.

    For a table of the paper this is its sweep, otherwise there is a line for each row. The lines name the folder in
    which the runs of the part lie, so that they skip the runs which are finished there.
    """
    listed = [f"dataset.split={_listed(splits)}"] if list(splits) != [0] else []
    if part.table.name in _VARIED:
        values = next(iter(part.family.rows.values())).values
        words = [*overrides(values, _VARIED[part.table.name]), *_place_and_scoring(part), *listed]
        yield _line([f"sweeps={part.table.name}", *words, f"seed={_listed(sorted({seed for _, seed, _ in missing}))}"])
        return
    for name in dict.fromkeys(row for row, _, _ in missing):
        seeds = sorted({seed for row, seed, _ in missing if row == name})
        words = [*overrides(part.family.rows[name].values), *_place_and_scoring(part), *listed]
        yield _line(["-m", *words, f"seed={_listed(seeds)}"])


def _line(words: Sequence[str]) -> str:
    return " ".join(["python -m bdlf.train", *map(shlex.quote, words)])


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _place_and_scoring(part: Part) -> list[str]:
    path = str(part.runs["path"].iloc[0])
    output = None if path.startswith("wandb:") else Path(path).parents[2]  # <output>/<dataset>/<label>-<hash>/seed<k>
    words = [] if output in (None, Path("outputs").resolve()) else [f"output={_quoted(str(output))}"]
    scored = {"flip": (bool(part.card["flip"]), True), "feature": (part.card["feature"], "after_bn")}
    scored |= {"gallery": (part.card["gallery"], "agw"), "reading": (part.card["reading"], "paper")}
    words += [
        f"evaluation.{key}={as_typed(value)}"
        for key, (value, usual) in scored.items()
        if value not in (None, usual, "all")
    ]
    return words + ([f"evaluation.shots={part.card['shots']}"] if part.card["gallery"] == "official" else [])


def overrides(values: Values, without: Sequence[str] = ()) -> list[str]:
    """The words of the command line that ask for a flat configuration: its dataset, its method and what differs.

    The words do not say the seed, the split, any name, or where the output goes. The keys in `without` are left out.
    """
    dataset, method, recipe = origin(values)
    given = composed(dataset, method, recipe)
    unsaid = {"dataset.name", "dataset.split", *without, *foreign_keys(values)}
    wanted = [key for key in values if can_decide(key) or key in ("dataset.root", "dataset.silhouettes")]
    differ = [
        f"{key}={_quoted(values[key]) if isinstance(values[key], str) else as_typed(values[key])}"
        for key in wanted
        if key not in unsaid and values[key] != given[key]
    ]
    named = [f"dataset={dataset}"] if dataset != "synthetic" else []
    named += [f"method={method}"] if method != PAPER else []
    return [*named, *([f"recipe={recipe}"] if recipe != SHARED else []), *differ]


def _quoted(text: str) -> str:
    """The text as it is written in an override of Hydra: in quotation marks if it has special characters."""
    return text if re.fullmatch(r"[\w./-]+", text) else f"'{text}'"
