"""How a row differs from the row it is compared with: pairs of runs, their queries, intervals and p-values."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bdlf.reporting.intervals import Estimate, estimate, holm, query_values

FIGURES = ("rank1", "mAP")
"""Figures whose differences are formed."""


@dataclass(frozen=True)
class Queries:
    """What a run found, query by query."""

    values: Mapping[str, np.ndarray]
    """`rank1` and `mAP` in percent, (queries,), NaN where a query has no match."""
    pids: np.ndarray
    """(queries,)"""


def read_queries(path: str, row: int, queries: int, problems: list[str]) -> Queries | None:
    """The queries of row `row` of a run's result.

    None, and a line in `problems`, where a run has lost them or never had its queries' pids. None without a line for a
    run in W&B, which holds no figures of single queries.
    """
    file = Path(path) / "per_query.npz"
    if path.startswith("wandb:"):
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            values = query_values(arrays, row)
            if f"{row}.pids" not in arrays:
                problems.append(
                    f"{file} does not hold the identities of its queries (an older version wrote it): no difference "
                    "for this run; run it again with rerun=true"
                )
                return None
            pids = arrays[f"{row}.pids"]
        if any(array.shape != (queries,) for array in (*values.values(), pids)):
            raise ValueError(f"row {row} is not of {queries} queries")
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        text = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        problems.append(
            f"{file} cannot be read ({text}): no difference for this run; restore it, or run with rerun=true"
        )
        return None
    return Queries(values, pids)


def compare(
    own: Mapping[tuple[int, int], Queries | None], reference: Mapping[tuple[int, int], Queries | None]
) -> tuple[dict[str, Any], dict[str, Estimate]]:
    """The difference of a row's runs to the reference's; both map a run's (seed, split) to its queries.

    Returns the columns `pairs` and, for each of FIGURES, `<f>_difference`, `_low`, `_high` and `_p` (not yet adjusted),
    and the estimates that they come from. Identities of different splits are different identities.
    """
    found: dict[int, list[tuple[Queries, Queries]]] = {}
    for (seed, split), one in own.items():
        other = reference.get((seed, split))
        if one is not None and other is not None and np.array_equal(one.pids, other.pids):
            first = found.get(split, [(one, other)])[0][0]
            if np.array_equal(first.pids, one.pids):
                found.setdefault(split, []).append((one, other))
    line: dict[str, Any] = {"pairs": sum(map(len, found.values()))}
    estimates: dict[str, Estimate] = {}
    for figure in FIGURES if found else ():
        differences, pids = _matrix(found, figure)
        try:
            result = estimate(differences, pids)
        except ValueError:  # a single identity, or no query with a value: there is no interval
            continue
        estimates[figure] = result
        line[f"{figure}_difference"] = result.mean
        if result.standard_error == 0:  # no query differs, or all alike: nothing is known of the spread
            continue
        interval = result.interval()
        line |= {f"{figure}_low": interval.low, f"{figure}_high": interval.high}
        line[f"{figure}_p"] = result.p_value
    return line, estimates


def _matrix(found: Mapping[int, list[tuple[Queries, Queries]]], figure: str) -> tuple[np.ndarray, np.ndarray]:
    """Differences (runs, queries), the queries of each split in columns of their own, and the columns' identities."""
    widths = [len(pairs[0][0].pids) for pairs in found.values()]
    differences = np.full((sum(map(len, found.values())), sum(widths)), np.nan)
    identities: list[np.ndarray] = []
    run = start = 0
    for pairs, width in zip(found.values(), widths, strict=True):
        for mine, theirs in pairs:
            differences[run, start : start + width] = mine.values[figure] - theirs.values[figure]
            run += 1
        numbers = np.unique(pairs[0][0].pids, return_inverse=True)[1]
        identities.append(numbers + (identities[-1].max() + 1 if identities else 0))
        start += width
    return differences, np.concatenate(identities)


def adjust(lines: Iterable[dict[str, Any]]) -> None:
    """Replace the p-values of all differences of a table by Holm's."""
    lines = list(lines)
    places = [(line, f"{figure}_p") for line in lines for figure in FIGURES if f"{figure}_p" in line]
    for (line, name), p in zip(places, holm([line[name] for line, name in places]), strict=True):
        line[name] = p
