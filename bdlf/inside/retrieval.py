"""Scores features by retrieval, as the run's own results are, and says what a random ranking would score."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bdlf.datasets.protocol import Rule
from bdlf.evaluation import Setting, score
from bdlf.evaluation.metrics import RULES
from bdlf.inside.features import InsideFeatures
from bdlf.inside.scores import Score, by_identity, of_ratios
from bdlf.system.errors import InputError

FIGURES = ("mAP", "rank1")


def placed(settings: Sequence[Setting], rows: np.ndarray) -> list[Setting]:
    """The settings with positions in `rows` instead of rows of the listing.

    Raises InputError if an image of a setting is not among `rows`.
    """
    found = []
    for setting in settings:
        sides = [side for trial in setting.trials for side in trial]
        lacking = np.setdiff1d(np.concatenate(sides), rows)
        if lacking.size:
            raise InputError(f"{setting.name}: {lacking.size} images that the protocol needs have no feature")
        trials = tuple((np.searchsorted(rows, one), np.searchsorted(rows, other)) for one, other in setting.trials)
        found.append(dataclasses.replace(setting, trials=trials))
    return found


def retrieval(inside: InsideFeatures, name: str, settings: Sequence[Setting], place: np.ndarray) -> list[list[Score]]:
    """The scores of `FIGURES` under each of the `settings`, whose trials are positions, of the feature `name`.

    Similarity is the cosine. "Z" is compared as it is, because scoring has normalised it. `place` (m,) is the identity
    of each image, from 0.
    """
    features = inside.features[name]
    if name != "Z":
        exact = features.astype(np.float64)
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        features = (exact / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    identities = int(place.max()) + 1
    found = []
    for setting in settings:
        scores = score(features, np.arange(len(features)), inside.table, setting)
        own = np.concatenate([place[queries] for queries, _ in setting.trials])
        valid = (scores.first_match > 0).ravel()
        values = {"mAP": scores.ap.ravel()[valid], "rank1": (scores.first_match.ravel()[valid] == 1).astype(float)}
        of = by_identity(np.ones((int(valid.sum()), 1)), own[valid], identities)
        ratios = [of_ratios(by_identity(values[one][:, None], own[valid], identities), of) for one in FIGURES]
        found.append(
            [dataclasses.replace(one, value=scores.mean[key]) for one, key in zip(ratios, FIGURES, strict=True)]
        )
    return found


def random_ranking(setting: Setting, table: pd.DataFrame) -> list[float]:
    """What `FIGURES` are on average, in percent, if the gallery is ranked at random for every query.

    Of a query with m matches among the N gallery images that it sees, the first is a match with probability m / N, and
    the expected average precision is [H_N + (m - 1) (N - H_N) / (N - 1)] / N, where H_N = 1 + 1/2 + ... + 1/N.
    """
    rule = RULES[setting.rule]
    found: list[np.ndarray] = []
    for queries, gallery in setting.trials:
        seen, matches = _seen(rule, table.iloc[queries], table.iloc[gallery])
        valid = matches > 0
        total, match = seen[valid].astype(float), matches[valid]
        harmonic = np.cumsum(1 / np.arange(1, total.max(initial=1) + 1))[total.astype(int) - 1]
        spread = (match - 1) * (total - harmonic) / np.maximum(total - 1, 1)
        precision = (harmonic + spread) / total
        found.append(100 * np.array([precision.mean(), (match / total).mean()]))
    return [float(value) for value in np.mean(found, axis=0)]


def _seen(rule: Rule, queries: pd.DataFrame, gallery: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """How many gallery images each query sees, and how many of these show its identity."""
    of_query = {name: queries[name].to_numpy()[:, None] for name in ("pid", "camid")}
    of_image = {name: gallery[name].to_numpy()[None, :] for name in ("pid", "camid")}
    same = of_query["pid"] == of_image["pid"]
    hidden = np.zeros_like(same)
    for one, other in rule.hidden_cameras:
        hidden |= (of_query["camid"] == one) & (of_image["camid"] == other)
    if rule.hides_own_camera:
        hidden |= same & (of_query["camid"] == of_image["camid"])
    return (~hidden).sum(axis=1), (same & ~hidden).sum(axis=1)
