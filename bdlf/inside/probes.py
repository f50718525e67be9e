"""Linear probes: what can be read from a feature by a linear map, on people whom the map has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from bdlf.evaluation import Setting
from bdlf.inside.features import InsideFeatures
from bdlf.inside.retrieval import FIGURES, placed, random_ranking, retrieval
from bdlf.inside.ridge import FOLDS, cross_fitted, folds_of, on_principal_axes
from bdlf.inside.scores import Score, by_identity, difference, mean_of, of_ratios, rescaled, with_noise_of_fits
from bdlf.inside.targets import GROUPS, Target, targets_of
from bdlf.system.errors import InputError

SHARING, DETAIL = "Z_B", ("Z_D", "Zbar_D")
"""The feature that the paper says holds what the modalities share, and those that it says hold what is specific."""
COLUMNS = ("feature", "target", "group", "measure", "score", "low", "high", "chance", "identities", "images")
ALL = "all"
"""The name of the target that stands for all of a group."""
SPECIFIC = "specific"
"""The group of the factors that only one modality shows, visible and infrared together."""


def probe(
    inside: InsideFeatures, settings: Sequence[Setting] = (), *, seed: int = 0, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Probes of every feature of `inside`: a row for each feature and target, with the columns `COLUMNS`.

    - `settings` are those of the run's protocol on these images (`run.settings["test"]`); without them there is no row
      of retrieval.
    - `seed` draws the folds: identities are split into `FOLDS` parts, and each is evaluated by probes that were fitted
      on the others.
    - `names` of None stands for all features.

    Rows:

    - group `modality`, `camera`, and classes among the factors: balanced accuracy in percent, by ridge regression on
      the classes' indicators and the nearest class mean in the space of the predictions, all classes equally likely
      (penalised discriminant analysis; Hastie, Buja and Tibshirani 1995). `chance` is one in the number of classes.
    - numbers among the factors: R^2 in percent by ridge regression, relative to the mean of the images of the fit.
      Chance is 0; below 0 the probe is worse than that mean. Where both modalities show a factor, it is its deviation
      from the mean of the modality that is read, because knowing the modality is no knowledge of the factor.
    - group `retrieval`: mAP and rank-1 in percent by cosine similarity, for each setting and on average. Chance is a
      random ranking.
    - `target` "all": the mean over the group's factors on a scale on which chance is 0 and perfect 100. The group
      "specific" is the mean of "visible" and "infrared".
    - `feature` "Z_B - Z_D" and "Z_B - Zbar_D": differences, paired by identity, for modality and for every "all".

    `low` and `high` are the ends of the 95 % interval over identities: other people to fit the probes on, and
    other people to evaluate them on.

    Raises InputError if `inside` has fewer than two identities.
    """
    images = inside.table
    known, place = np.unique(images["pid"].to_numpy(), return_inverse=True)
    if len(known) < 2:
        raise InputError(
            f"probes need at least 2 identities, to fit on one and evaluate on another: {len(known)} given"
        )
    task = _Task(images, place, targets_of(images), placed(settings, inside.rows), seed)
    names = list(inside.features) if names is None else list(names)
    # A decomposition is too small to share between threads, which would wait for each other most of the time.
    with threadpool_limits(1), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        cells_of = pool.map(lambda name: _cells(inside, name, task), names)
        watched = tqdm(cells_of, desc="probes", total=len(names), unit="feature", disable=None, leave=False)
        found = dict(zip(names, watched, strict=True))
    rows = [_row(name, key, cell) for name, cells in found.items() for key, cell in cells.items()]
    for detail in DETAIL:
        if SHARING in found and detail in found:
            pairs = ((key, cell, found[detail][key]) for key, cell in found[SHARING].items() if cell.compared)
            rows += [_row(f"{SHARING} - {detail}", key, _minus(one, other)) for key, one, other in pairs]
    table: pd.DataFrame = pd.DataFrame(rows, columns=list(COLUMNS))
    return table


@dataclass(frozen=True, eq=False)
class _Task:
    """What every feature is asked."""

    table: pd.DataFrame
    place: np.ndarray
    """(m,) the identity of each image, from 0."""
    targets: list[Target]
    settings: list[Setting]
    seed: int
    chances: list[list[float]] = field(init=False)
    """Of `FIGURES`, under every setting."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "chances", [random_ranking(one, self.table) for one in self.settings])


@dataclass(frozen=True, eq=False)
class _Cell:
    """One score of one feature."""

    score: Score
    chance: float
    measure: str
    images: int
    compared: bool = False
    """Whether two features are compared in it."""


def _cells(inside: InsideFeatures, name: str, task: _Task) -> dict[tuple[str, str], _Cell]:
    """All scores of the feature `name`, by group and target."""
    cells: dict[tuple[str, str], _Cell] = {}
    features = on_principal_axes(inside.features[name])
    for target, score in zip(task.targets, _scores(features, task), strict=True):
        measure = "balanced accuracy" if target.is_class else "R2"
        compared = target.group == "modality"
        cells[target.group, target.name] = _Cell(score, target.chance, measure, len(target.lines), compared)
    for group in [group for group in GROUPS if group != "modality"]:
        own = [cell for (of, _), cell in cells.items() if of == group]
        if own:
            cells[group, ALL] = _mean([rescaled(cell.score, cell.chance) for cell in own], own, "above chance")
    private = [cells[group, ALL] for group in ("visible", "infrared") if (group, ALL) in cells]
    if private:
        cells[SPECIFIC, ALL] = _mean([cell.score for cell in private], private, "above chance")
    return cells | _retrieval_cells(inside, name, task)


def _retrieval_cells(inside: InsideFeatures, name: str, task: _Task) -> dict[tuple[str, str], _Cell]:
    cells: dict[tuple[str, str], _Cell] = {}
    results = retrieval(inside, name, task.settings, task.place)
    for setting, scores, chances in zip(task.settings, results, task.chances, strict=True):
        queries = len(setting.trials[0][0])
        for figure, score, chance in zip(FIGURES, scores, chances, strict=True):
            cells["retrieval", f"{figure} {setting.name}"] = _Cell(score, chance, figure, queries)
    for number, figure in enumerate(FIGURES if results else ()):
        chance = float(np.mean([one[number] for one in task.chances]))
        own = [cell for cell in cells.values() if cell.measure == figure]
        mean = mean_of([one[number] for one in results])
        cells["retrieval", figure] = _Cell(mean, chance, figure, sum(cell.images for cell in own), figure == "mAP")
    return cells


def _mean(scores: Sequence[Score], cells: Sequence[_Cell], measure: str) -> _Cell:
    return _Cell(mean_of(scores), 0.0, measure, max(cell.images for cell in cells), True)


def _minus(one: _Cell, other: _Cell) -> _Cell:
    return _Cell(difference(one.score, other.score), 0.0, one.measure, one.images)


def _row(feature: str, key: tuple[str, str], cell: _Cell) -> tuple[object, ...]:
    low, high = cell.score.interval()
    values = (cell.measure, cell.score.value, low, high, cell.chance, cell.score.identities, cell.images)
    return (feature, key[1], key[0], *values)


def _scores(features: np.ndarray, task: _Task) -> list[Score]:
    """The score of each of the task's targets. Targets of the same images are fitted together."""
    together: dict[bytes, list[int]] = {}
    for number, target in enumerate(task.targets):
        together.setdefault(target.lines.tobytes(), []).append(number)
    found: dict[int, Score] = {}
    for numbers in together.values():
        targets = [task.targets[number] for number in numbers]
        lines = targets[0].lines
        place = task.place[lines]
        fold = folds_of(place, FOLDS, task.seed)
        predicted = cross_fitted(features[lines], [target.values for target in targets], place, fold, seed=task.seed)
        for number, target, (outer, inner) in zip(numbers, targets, predicted, strict=True):
            measure = _balanced_accuracy if target.is_class else _explained
            counted, of = measure(target.values, outer, inner, fold)
            identities = int(task.place.max()) + 1
            sums = [by_identity(values, place, identities) for values in (counted, of)]
            ratio = with_noise_of_fits(of_ratios(*sums), int(fold.max()) + 1)
            found[number] = ratio if target.is_class else Score(100 - ratio.value, -ratio.pulls)
    return [found[number] for number in range(len(task.targets))]


def _explained(
    values: np.ndarray, outer: np.ndarray, inner: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors and squared distances from the mean of the fit, each (k, 1)."""
    errors, distances = np.zeros((2, len(values), 1))
    for held in range(int(fold.max()) + 1):
        tested = fold == held
        from_mean = values[tested] - values[~tested].mean(axis=0)
        errors[tested, 0] = ((from_mean - outer[tested]) ** 2).sum(axis=1)
        distances[tested, 0] = (from_mean**2).sum(axis=1)
    return errors, distances


def _balanced_accuracy(
    values: np.ndarray, outer: np.ndarray, inner: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image is classified right, and its class, each as indicators (k, d)."""
    classes = values.argmax(axis=1)
    right = np.zeros(len(values), dtype=bool)
    for held in range(int(fold.max()) + 1):
        tested = fold == held
        right[tested] = _nearest_mean(inner[held, ~tested], classes[~tested], outer[tested]) == classes[tested]
    return values * right[:, None], values


def _nearest_mean(fitted: np.ndarray, classes: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """The class of each row of `tested` (n, d) whose mean in `fitted` (k, d) is nearest, in units of the covariance
    within the classes: linear discriminant analysis with equal priors."""
    known = np.unique(classes)
    means = np.stack([fitted[classes == one].mean(axis=0) for one in known])
    within = fitted - means[np.searchsorted(known, classes)]
    covariance = within.T @ within / len(fitted)
    covariance += (1e-6 * np.trace(covariance) / len(covariance) + 1e-30) * np.eye(len(covariance))
    scale = np.linalg.cholesky(np.linalg.inv(covariance))
    distances = ((tested @ scale)[:, None] - (means @ scale)[None]) ** 2
    found: np.ndarray = known[distances.sum(axis=2).argmin(axis=1)]
    return found
