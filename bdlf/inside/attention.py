"""Figure 5: heatmaps of the comprehensive feature and of the detail branch, and how narrow they are."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.special import stdtrit

from bdlf.datasets.description import MODALITIES
from bdlf.inside.heat import COMPREHENSIVE, DETAIL, MAPS, AttentionMaps
from bdlf.inside.style import bare, blank, styled
from bdlf.system.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PEOPLE = {170: 5, 85: 3}
"""How many identities a figure of each width shows; the paper shows five."""


def attention_figure(maps: AttentionMaps, images: np.ndarray, shown: np.ndarray, *, width: int = 170) -> Figure:
    """Figure 5: a column for each image, with the image above and its maps below, all on one scale.

    `shown` are the places in `maps.rows` of the images, as `shown_images` chooses them; `images` are their pixels,
    uint8 (n, height, width, 3). Every heatmap is divided by its own maximum and enlarged to the size of its image.
    """
    names = list(maps.heat)
    height, across = images.shape[1:3]
    each = (width - 14) / len(shown)
    with styled():
        figure = blank(width, (1 + len(names)) * (each * height / across + 1) + 21)
        grid = figure.subplots(1 + len(names), len(shown), squeeze=False)
        for column, at in enumerate(shown):
            grey = images[column].mean(axis=2)
            grid[0, column].imshow(images[column])
            grid[0, column].set_title(f"{maps.pids[at]}\n{MODALITIES[maps.modalities[at]]}", fontsize=6)
            for row, name in enumerate(names, start=1):
                grid[row, column].imshow(grey, cmap="gray", vmin=-300, vmax=500)
                drawn = grid[row, column].imshow(
                    _enlarged(maps.heat[name][at], height, across), cmap="inferno", alpha=0.7, vmin=0, vmax=1
                )
        for axes in grid.ravel():
            bare(axes)
        labels = {COMPREHENSIVE: f"comprehensive\nstage {maps.stage}", DETAIL: "detail\nblocks"}
        labels = {name: f"{labels[name]}, {heat.shape[1]}×{heat.shape[2]}" for name, heat in maps.heat.items()}
        for axes, label in zip(grid[:, 0], ["image", *(labels[name] for name in names)], strict=True):
            axes.set_ylabel(label)
        bar = figure.colorbar(drawn, ax=grid, location="bottom", shrink=0.4, aspect=40, pad=0.01)
        bar.set_label("share of the image's maximum")
        bar.outline.set_visible(False)
        figure.suptitle(_title(maps, width))
    return figure


def shown_images(maps: AttentionMaps, *, pids: Sequence[int] = (), people: int = 5) -> np.ndarray:
    """Places in `maps.rows`: of each of some identities the first visible and the first infrared image.

    The identities are `pids`, or the first `people` of the test set. Raises InputError for an identity that has no
    image of both modalities.
    """
    both = [set(maps.pids[maps.modalities == modality].tolist()) for modality in MODALITIES]
    known = sorted(both[0] & both[1])
    for pid in pids:
        if pid not in known:
            some = ", ".join(map(str, known[:8])) + (", ..." if len(known) > 8 else "")
            raise InputError(f"pids={pid}: identity {pid} has no test image of both modalities; there are {some}")
    return np.array(
        [
            np.flatnonzero((maps.pids == pid) & (maps.modalities == modality))[0]
            for pid in list(pids)[:people] or known[:people]
            for modality in MODALITIES
        ]
    )


def widths(heat: np.ndarray) -> dict[str, np.ndarray]:
    """How wide the heat (m, h, w) of each image is, by two measures in 0..1, each (m,); NaN for an image without heat.

    - The area is the share of positions whose heat is at least half of the image's maximum.
    - The entropy is that of the heat as a distribution over the positions, divided by that of the uniform one.
    """
    flat = heat.reshape(len(heat), -1).astype(np.float64)
    flat[flat.max(axis=1) == 0] = np.nan
    shares = flat / flat.sum(axis=1, keepdims=True)
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    entropy = -(shares * logs).sum(axis=1) / np.log(max(2, flat.shape[1]))
    area = (flat >= flat.max(axis=1, keepdims=True) / 2).mean(axis=1)
    return {"area": np.where(np.isnan(entropy), np.nan, area), "entropy": entropy}


def attention_numbers(maps: AttentionMaps) -> dict[str, Any]:
    """How wide the maps are, for the paper's sentence that detail maps are narrower than comprehensive ones.

    For each kind of map and each measure of `widths`: the mean over identities of the mean over an identity's test
    images, and a 95 % interval from Student's t over the identities. `detail_minus_comprehensive` is the paired
    difference; an interval below 0 says that detail maps are narrower. It is left out if the maps differ in size, which
    alone changes both measures. The interval does not hold the noise of training. `without_heat` counts the images
    whose heat is 0 everywhere, as by `of="gradient"` it may be; they are in no mean.
    """
    means = {name: pd.DataFrame(widths(heat)).groupby(maps.pids).mean() for name, heat in maps.heat.items()}
    numbers: dict[str, Any] = {"map": maps.of, "stage": maps.stage, "images": len(maps.rows)}
    numbers["identities"] = len(np.unique(maps.pids))
    for name, heat in maps.heat.items():
        facts = {"size": list(heat.shape[1:]), "without_heat": int((heat.max(axis=(1, 2)) == 0).sum())}
        numbers[name] = facts | _intervals(means[name])
    if DETAIL in means and maps.heat[DETAIL].shape == maps.heat[COMPREHENSIVE].shape:
        numbers["detail_minus_comprehensive"] = _intervals(means[DETAIL] - means[COMPREHENSIVE])
    return numbers


def _intervals(of_identities: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    return {str(measure): interval(values.dropna().to_numpy()) for measure, values in of_identities.items()}


def interval(values: np.ndarray) -> dict[str, float | None]:
    """The mean of independent values, and the ends of its 95 % interval by Student's t; None where too few are left."""
    n = len(values)
    mean = float(values.mean()) if n else None
    if mean is None or n < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _enlarged(heat: np.ndarray, height: int, across: int) -> np.ndarray:
    """One heatmap, divided by its maximum, in the size of its image."""
    scaled = torch.from_numpy(heat / max(float(heat.max()), np.finfo(np.float32).tiny))[None, None]
    enlarged = F.interpolate(scaled, (height, across), mode="bilinear", align_corners=False)[0, 0]
    return np.asarray(enlarged)


def _title(maps: AttentionMaps, width: int) -> str:
    return textwrap.fill(f"Heat: {MAPS[maps.of]} (map={maps.of})", 110 if width > 100 else 55)
