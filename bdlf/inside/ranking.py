"""The contact sheet of a ranking: queries and the first images of the gallery, right and wrong ones marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bdlf.evaluation import Setting, ranked_gallery, score
from bdlf.inside.features import InsideFeatures
from bdlf.inside.style import BLACK, BLUE, VERMILION, bare, blank, styled
from bdlf.system.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST = 10
"""How many gallery images are shown of each query."""
_NAMED = 8  # identities in a message

Take = Callable[[np.ndarray], np.ndarray]
"""Gives the images of some rows of the listing, uint8 (n, height, width, 3)."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """What the q queries of one trial of a protocol find. Rows are those of the run's table or of the listing."""

    setting: Setting
    trial: int
    queries: np.ndarray
    """(q,) rows."""
    first: np.ndarray
    """(q, FIRST) rows of the gallery images that the protocol shows to the query, the closest one first; then -1."""
    ap: np.ndarray
    """(q,) average precision as the protocol scores it, in 0..1; NaN for a query without a match."""


def rank(inside: InsideFeatures, table: pd.DataFrame, setting: Setting, *, trial: int = 0, name: str = "Z") -> Ranking:
    """Rank the gallery of one trial of `setting` for its queries, with the protocol's camera rules.

    `table` is the run's table, or the listing, whose rows `inside.rows` and the trials of `setting` mean. `name` is the
    feature to compare. Raises InputError for a trial that the protocol does not have, and where
    `bdlf.evaluation.score` raises it.
    """
    if not 0 <= trial < len(setting.trials):
        raise InputError(f"trial={trial}: {setting.name} has the trials 0..{len(setting.trials) - 1}")
    one = dataclasses.replace(setting, trials=(setting.trials[trial],))
    features = inside.features[name]
    ap = score(features, inside.rows, table, one).ap[0]
    queries, gallery = setting.trials[trial]
    lines = np.full(len(table), -1)
    lines[inside.rows] = np.arange(len(inside.rows))
    pids, camids = table["pid"].to_numpy(), table["camid"].to_numpy()
    columns = ranked_gallery(
        features[lines[queries]] @ features[lines[gallery]].T,
        pids[queries],
        pids[gallery],
        camids[queries],
        camids[gallery],
        protocol=setting.rule,
        first=FIRST,
    )
    return Ranking(setting, trial, queries, np.where(columns >= 0, gallery[columns], -1), ap)


def chosen_queries(
    ranking: Ranking, table: pd.DataFrame, *, pids: Sequence[int] = (), each: int = 3
) -> list[tuple[str, int]]:
    """The queries that a sheet shows, each with the reason, and its place in `ranking.queries`.

    Without `pids` they are the `each` hardest and the `each` easiest queries by average precision, at most one of an
    identity in each group. With `pids` they are the hardest and the easiest query of each of these identities. Raises
    InputError for an identity that has no query with a match.
    """
    valid = np.flatnonzero(np.isfinite(ranking.ap))
    order = valid[np.argsort(ranking.ap[valid], kind="stable")]
    people = table["pid"].to_numpy()[ranking.queries]
    known = np.unique(people[valid])
    for pid in pids:
        if pid not in known:
            some = ", ".join(map(str, known[:_NAMED].tolist())) + (", ..." if len(known) > _NAMED else "")
            raise InputError(
                f"pids={pid}: no query of {ranking.setting.name} shows identity {pid} and has a match; there are {some}"
            )
    if pids:
        of_each = [order[people[order] == pid].tolist() for pid in pids]
        return [pair for own in of_each for pair in [("hardest", own[0]), ("easiest", own[-1])][: len(own)]]
    hardest = _one_of_each_identity(order, people)[:each]
    easiest = _one_of_each_identity(order[::-1], people)[:each]
    return [("hardest", at) for at in hardest] + [("easiest", at) for at in easiest if at not in hardest]


def ranking_figure(
    ranking: Ranking,
    table: pd.DataFrame,
    take: Take,
    *,
    pids: Sequence[int] = (),
    width: int = 170,
) -> Figure:
    """A row for each chosen query: the query, then the first ten images that the protocol lets it see.

    An image of the query's identity has a solid blue frame and a check mark, any other a dashed vermilion frame and a
    cross. `take` gives the images, for example `lambda rows: store.take(rows).numpy()`. `pids` is that of
    `chosen_queries`, which raises InputError for an unknown identity.
    """
    narrow = width < 100
    chosen = chosen_queries(ranking, table, pids=pids, each=1 if narrow else 3)
    columns = FIRST // 2 if narrow else FIRST
    folds = FIRST // columns
    people = table["pid"].to_numpy()
    every = np.concatenate([np.r_[ranking.queries[at], ranking.first[at]] for _, at in chosen])
    distinct = np.unique(every[every >= 0])
    images = take(distinct)
    tall = width / (columns + 1) * min(2.2, images.shape[1] / images.shape[2])
    with styled():
        figure = blank(width, len(chosen) * (folds * (tall + 0.6) + 5) + 5)
        grid = figure.subplots(len(chosen) * folds, columns + 1, squeeze=False)
        for axes in grid.ravel():
            bare(axes)
        for row, (why, at) in enumerate(chosen):
            query = ranking.queries[at]
            start = grid[row * folds, 0]
            start.imshow(images[np.searchsorted(distinct, query)])
            start.set_title(
                f"{why}\n{_name(table, query)}\nAP {100 * ranking.ap[at]:.0f} %", fontsize=6, linespacing=1.1
            )
            for place, found in enumerate(ranking.first[at]):
                axes = grid[row * folds + place // columns, 1 + place % columns]
                if found >= 0:
                    axes.imshow(images[np.searchsorted(distinct, found)])
                    _mark(axes, right=bool(people[found] == people[query]))
                    axes.set_title(f"{place + 1}: {_name(table, found)}", fontsize=6)
        fold = "\n" if narrow else " "
        figure.suptitle(f"{ranking.setting.name}: queries and{fold}the first {FIRST} of the gallery (identity, camera)")
    return figure


def ranking_numbers(ranking: Ranking, table: pd.DataFrame, *, pids: Sequence[int] = ()) -> dict[str, Any]:
    """The protocol, its mean AP in percent, and of each chosen query its AP in percent and what it finds."""
    people, paths = table["pid"].to_numpy(), table["path"].to_numpy()
    shown = []
    for why, at in chosen_queries(ranking, table, pids=pids):
        query, found = ranking.queries[at], ranking.first[at][ranking.first[at] >= 0]
        right = [bool(people[row] == people[query]) for row in found]
        own = {"query": str(paths[query]), "pid": int(people[query]), "why": why, "ap": 100 * float(ranking.ap[at])}
        shown.append(own | {"first": [str(paths[row]) for row in found], "right": right})
    facts = {"protocol": ranking.setting.name, "trial": ranking.trial, "mAP": 100 * float(np.nanmean(ranking.ap))}
    return facts | {"queries": shown}


def _one_of_each_identity(order: np.ndarray, people: np.ndarray) -> list[int]:
    _, first = np.unique(people[order], return_index=True)
    return [int(at) for at in order[np.sort(first)]]


def _name(table: pd.DataFrame, row: int) -> str:
    return f"{table['pid'].iloc[row]}, {table['camid'].iloc[row]}"


def _mark(axes: Axes, *, right: bool) -> None:
    """Frame an image as right or wrong: by colour, by the dashes of the frame, and by a mark in the corner."""
    colour = BLUE if right else VERMILION
    for spine in axes.spines.values():
        spine.set(visible=True, edgecolor=colour, linewidth=1.6, linestyle="-" if right else (0, (3, 1.5)))
    box = {"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": BLACK, "linewidth": 0.3}
    axes.text(
        0.96, 0.03, "✓" if right else "✗", color=colour, ha="right", va="bottom", transform=axes.transAxes, bbox=box
    )
