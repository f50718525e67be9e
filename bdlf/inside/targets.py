"""What a linear probe is asked to read from a feature: modality, camera, and the factors of the synthetic set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bdlf.data.synthetic.factors import FACTOR_KINDS, SHARED_CLASSES
from bdlf.datasets.description import MODALITIES

GROUPS = {
    "modality": "modality",
    "camera": "camera within a modality",
    "shared": "factors that both modalities show",
    "visible": "factors that only visible images show",
    "infrared": "factors that only infrared images show",
    "nuisance": "factors of the image or camera",
}
"""The groups of targets, in the order of tables, and what each is."""
_CYCLES = {"view": 360.0, "gait_phase": 2 * np.pi, "pattern_phase": 1.0, "background_offset": 1.0}
"""Factors that go around, and their period. A probe reads their cosine and sine."""
_CLASSES = (*SHARED_CLASSES, "occluder")
_ONE_MODALITY = {"visible": "vis", "infrared": "ir"}
_WITHOUT_MEANING = ("noise_seed",)
_LEAST = 2
"""A class counts if at least so many identities show it, because one is needed to fit and another to evaluate."""


@dataclass(frozen=True, eq=False)
class Target:
    """What a probe reads of some of the m images."""

    name: str
    group: str
    """One of `GROUPS`."""
    modality: str | None
    """The modality of the images that the target is read of; None: both."""
    lines: np.ndarray
    """(k,) the images that it is read of, ascending positions in 0 .. m - 1."""
    values: np.ndarray
    """(k, d) float64: a number; the cosine and sine of an angle; or the indicators of the d classes. Numbers and angles
    of both modalities are deviations from the mean of the image's modality."""
    is_class: bool

    @property
    def chance(self) -> float:
        """The score of a probe that knows nothing, in percent: R^2 of 0, or balanced accuracy of one in d."""
        return 100 / self.values.shape[1] if self.is_class else 0.0


def targets_of(table: pd.DataFrame) -> list[Target]:
    """Everything that a probe can be asked of the images of `table`, in the order of `GROUPS`.

    The factors are those columns of `table` that are factors of the synthetic set. Factors of one modality's identities
    are read of images of that modality, and so is the tint, which infrared images do not show. A target that does not
    vary is left out, as is a class that fewer than two identities show.
    """
    modality = table["modality"].to_numpy()
    pids = table["pid"].to_numpy()
    everything = np.arange(len(table))
    of_modality = {name: np.flatnonzero(modality == name) for name in MODALITIES}
    found = [_classes("modality", "modality", None, everything, modality, pids)]
    for name, lines in of_modality.items():
        found.append(_classes(f"camera_{name}", "camera", name, lines, table["camid"].to_numpy(), pids))
    for name, group in FACTOR_KINDS.items():
        if name not in table or name in _WITHOUT_MEANING:
            continue
        shown = "vis" if name.startswith("tint") else _ONE_MODALITY.get(group)
        lines = everything if shown is None else of_modality[shown]
        values = table[name].to_numpy()
        if name in _CLASSES:
            found.append(_classes(name, group, shown, lines, values, pids))
        else:
            found.append(_number(name, group, shown, lines, _numbers(name, values), of_modality))
    order = list(GROUPS)
    return sorted((one for one in found if one is not None), key=lambda one: order.index(one.group))


def true_factors(table: pd.DataFrame) -> np.ndarray:
    """All factors of every image as one feature, float32 (m, c): each number with mean 0 and std 1, each class as
    indicators, each angle as its cosine and sine. The modality is not among them. Raises KeyError without factors."""
    columns: list[np.ndarray] = []
    for name in FACTOR_KINDS:
        if name in _WITHOUT_MEANING:
            continue
        values = table[name].to_numpy()
        if name in _CLASSES:
            columns.append((values[:, None] == np.unique(values)).astype(float))
        else:
            columns.append(_numbers(name, values))
    feature = np.concatenate(columns, axis=1)
    feature = feature - feature.mean(axis=0)
    spread = feature.std(axis=0)
    scaled: np.ndarray = (feature / np.where(spread > 0, spread, 1.0)).astype(np.float32)
    return scaled


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    if name not in _CYCLES:
        return values[:, None].astype(np.float64)
    angle = 2 * np.pi * values / _CYCLES[name]
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _number(
    name: str, group: str, shown: str | None, lines: np.ndarray, values: np.ndarray, of_modality: dict[str, np.ndarray]
) -> Target | None:
    own = values.copy()
    if shown is None:
        for same in of_modality.values():
            own[same] -= own[same].mean(axis=0)
    own = own[lines]
    return Target(name, group, shown, lines, own, False) if len(own) and np.ptp(own, axis=0).any() else None


def _classes(
    name: str, group: str, modality: str | None, lines: np.ndarray, values: np.ndarray, pids: np.ndarray
) -> Target | None:
    own = values[lines]
    known = [one for one in np.unique(own) if len(np.unique(pids[lines][own == one])) >= _LEAST]
    kept = np.isin(own, known)
    if len(known) < 2:
        return None
    indicators = (own[kept, None] == np.array(known)).astype(np.float64)
    return Target(name, group, modality, lines[kept], indicators, True)
