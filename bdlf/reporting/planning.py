"""What a table could have seen, and which runs would let it see more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bdlf.active import can_decide
from bdlf.errors import InputError
from bdlf.reporting.families import Values, as_typed
from bdlf.reporting.intervals import Estimate
from bdlf.reporting.power import Components, detectable, pooled, seeds_needed

if TYPE_CHECKING:
    from bdlf.reporting.parts import Part

EXAMPLE = 2.0
"""Points of mAP whose cost in seeds and hours stands under each table."""


def power_note(estimates: Sequence[Estimate], runs: pd.DataFrame, rows: int, wanted: set[tuple[int, int]]) -> list[str]:
    """The sentence under a table of `rows` rows that says how small a difference in mAP it could have seen.

    It is computed from the table's own variances and costs. A table without a pair of rows with two runs has none.
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
    """What it takes to see a difference of `points` in mAP in one block: a sentence, then the commands to run."""
    usable = [one for one in estimates if one.runs > 1]
    if not usable:
        yield "No difference of this table has two pairs of runs yet, so nothing is known of the noise; first run"
        needed = 2
    else:
        components: Components = pooled(usable)
        enough = seeds_needed(components, points)
        if enough is None:
            limit = detectable(components, 10_000)
            yield (
                f"A difference of {points:g} points of mAP is out of reach with these {components.identities} test "
                f"identities: no number of seeds shows less than {limit:.1f}. More test identities would help."
            )
            return
        needed = enough
    splits = sorted({split for _, split in part.wanted})
    seeds = -(-needed // len(splits))
    missing = list(_missing(part, seeds, splits))
    if usable:
        yield f"A difference of {points:g} points of mAP needs about {needed} pairs of runs (80 % power, 95 % level);"
    if not missing:
        yield "  the runs are there."
        return
    seconds = part.runs.drop_duplicates("path")["train_seconds"].mean()
    yield f"  {len(missing)} runs are missing, about {_hours(len(missing) * seconds)} at the speed of the runs here:"
    yield from (f"  {command}" for command in _commands(part, missing, splits))


def _missing(part: Part, seeds: int, splits: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    done = set(zip(part.runs["row"], part.runs["seed"], part.runs["split"].fillna(0).astype(int), strict=True))
    for name in part.family.rows:
        for seed in range(seeds):
            for split in splits:
                if (name, seed, split) not in done:
                    yield name, seed, split


_SWEEPS = ("table1", "table2", "table3", "figure4")


def _commands(part: Part, missing: Sequence[tuple[str, int, int]], splits: Sequence[int]) -> Iterator[str]:
    """One command for the paper's tables, whose sweeps name the rows; one for each row elsewhere. Finished runs cost
    nothing: a sweep skips them."""
    seeds = sorted({seed for _, seed, _ in missing})
    listed = [f"dataset.split={','.join(map(str, splits))}"] if splits != [0] else []
    if part.table.name in _SWEEPS:
        words = overrides(part.family.common, part.table.keys)
        yield " ".join([f"python -m bdlf.train sweeps={part.table.name}", *words, *listed, _seeds(seeds)])
        return
    for name in dict.fromkeys(row for row, _, _ in missing):
        own = sorted({seed for row, seed, _ in missing if row == name})
        words = overrides(part.family.rows[name].values, ())
        yield " ".join(["python -m bdlf.train -m", *words, *listed, _seeds(own)])


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed={','.join(map(str, seeds))}"


def overrides(values: Values, without: Sequence[str]) -> list[str]:
    """The words of the command line that give these values: the dataset, and what differs from its recipe."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from bdlf.active import flat
    from bdlf.command import register
    from bdlf.config import Config, config_folder

    dataset = str(values["dataset.name"]).removesuffix("-synthetic")
    register(Config, "config")
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        recipe = OmegaConf.to_object(compose("config", [f"dataset={dataset}"]))
    if not isinstance(recipe, Config):
        raise InputError("conf/config.yaml does not compose to the schema of bdlf.config; restore it")
    plain: dict[str, Any] = flat(recipe)
    differ = [
        f"{key}={as_typed(value)}"
        for key, value in values.items()
        if can_decide(key)
        and key in plain
        and key not in ("dataset.name", "dataset.split", *without)
        and value != plain[key]
    ]
    return [*([f"dataset={dataset}"] if dataset != "synthetic" else []), *differ]
