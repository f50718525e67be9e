"""Compares a row with its reference row, query by query: pairs of runs, differences, intervals and p-values."""

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
"""The figures in which rows are compared."""


@dataclass(frozen=True)
class Queries:
    """The figures of every query of a run."""

    values: Mapping[str, np.ndarray]
    """`rank1` and `mAP`, each (queries,) in percent; NaN for a query that has no match in the gallery."""
    pids: np.ndarray
    """The identities of the queries, (queries,)."""


def read_queries(path: str, row: int, queries: int, problems: list[str]) -> Queries | None:
    """The figures of the `queries` queries in row number `row` of the result of the run at `path`.

    Returns None if the run's file of these figures is missing, is damaged or lacks the pids, and appends a line that
    says so to `problems`. Also returns None for a run in W&B, where such figures are never kept.
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
    """Compares the runs of a row with the runs of the reference row.

    `own` and `reference` map the (seed, split) of a run to its queries. Two runs of one seed and split form a pair if
    they have the same queries. The identities of different splits count as different identities.

    Returns the values of the columns `pairs`, `<figure>_difference`, `<figure>_low`, `<figure>_high` and `<figure>_p`
    (not yet adjusted), and, by figure, the estimates that these values come from. A value that cannot be computed is
    absent.
    """
    found: dict[int, list[tuple[Queries, Queries]]] = {}  # from a split to its pairs
    for (seed, split), one in own.items():
        other = reference.get((seed, split))
        if one is not None and other is not None and np.array_equal(one.pids, other.pids):
            pairs = found.setdefault(split, [])
            if not pairs or np.array_equal(pairs[0][0].pids, one.pids):  # all pairs of a split share their columns
                pairs.append((one, other))
    line: dict[str, Any] = {"pairs": sum(map(len, found.values()))}
    estimates: dict[str, Estimate] = {}
    for figure in FIGURES if found else ():
        differences, pids = _matrix(found, figure)
        try:
            result = estimate(differences, pids)
        except ValueError:  # there is only one identity, or no query has a value, so there is no interval
            continue
        estimates[figure] = result
        line[f"{figure}_difference"] = result.mean
        if result.standard_error == 0:  # all queries differ by the same amount, so nothing is known of the spread
            continue
        interval = result.interval()
        line |= {f"{figure}_low": interval.low, f"{figure}_high": interval.high}
        line[f"{figure}_p"] = result.p_value
    return line, estimates


def _matrix(found: Mapping[int, list[tuple[Queries, Queries]]], figure: str) -> tuple[np.ndarray, np.ndarray]:
    """The differences in `figure`, (runs, queries), and the identities of the columns, (queries,).

    The queries of each split have columns of their own; a run has NaN in the columns of other splits. The identities
    are numbered anew so that no two splits share one.
    """
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
    """Replace the p-values of all differences in the lines of a table by the values that Holm's method adjusts."""
    lines = list(lines)
    places = [(line, f"{figure}_p") for line in lines for figure in FIGURES if f"{figure}_p" in line]
    for (line, name), p in zip(places, holm([line[name] for line, name in places]), strict=True):
        line[name] = p
