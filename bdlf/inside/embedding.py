"""The figure of the embedding: Z, Z^B, Z^D and Zbar^D in the plane, by identity and by modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from bdlf.inside.distances import SHOWN
from bdlf.inside.features import InsideFeatures
from bdlf.inside.style import BLUE, GREY, MATHS, OKABE_ITO, VERMILION, blank, styled
from bdlf.system.errors import InputError, check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = ("tsne", "pca")
PEOPLE = 12
"""How many identities have a colour."""
MOST = 1000
"""How many images are embedded; of more, all those of the coloured identities, and others at random."""
_WIDE = 50  # t-SNE starts from so many principal components, as van der Maaten and Hinton (2008) propose
_MARKERS = {"vis": ("o", "visible"), "ir": ("^", "infrared")}
_COLOURS = tuple(colour for colour in OKABE_ITO if colour != "#F0E442")  # yellow is too pale for small marks

Planes = dict[str, np.ndarray]


def embedding_figure(
    inside: InsideFeatures,
    *,
    method: str = "tsne",
    pids: Sequence[int] = (),
    width: int = 170,
    seed: int = 0,
) -> Figure:
    """Two panels for each feature: coloured by identity, and by modality. The points are the same.

    Circles are visible images, triangles infrared ones. In the first panel, `PEOPLE` identities, drawn with `seed` or
    given by `pids`, have a colour of their own, or the same colour and a hollow mark; all other images are grey.
    `method` is `tsne` or `pca` (scikit-learn); features are L2-normalised before. The axes have no unit. Raises
    InputError for an unknown method or identity.
    """
    chosen, people = chosen_images(inside, pids=pids, seed=seed)
    planes = embedded(inside, chosen, method=method, seed=seed)
    table = inside.table.iloc[chosen]
    own, modalities = table["pid"].to_numpy(), table["modality"].to_numpy()
    side_by_side = width < 100 or len(planes) < 3
    with styled():
        each = width / 2 if side_by_side else width / len(planes)
        figure = blank(width, (len(planes) if side_by_side else 2) * each + (20 if width < 100 else 22))
        grid = figure.subplots(*((len(planes), 2) if side_by_side else (2, len(planes))), squeeze=False)
        grid = grid if side_by_side else grid.T
        for (above, below), (name, points) in zip(grid, planes.items(), strict=True):
            _by_identity(above, points, own, modalities, people)
            _by_modality(below, points, modalities)
            above.set_title(f"{MATHS.get(name, name)} by identity")
            below.set_title(f"{MATHS.get(name, name)} by modality")
            for axes in (above, below):
                axes.set(xticks=[], yticks=[])
                axes.set_aspect("equal", adjustable="datalim")
                for spine in axes.spines.values():
                    spine.set(visible=True, color=GREY, linewidth=0.4)
        figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=2, markerscale=1.5)
        identities = {"title": "identity (circle: visible, triangle: infrared)", "ncols": 6 if width < 100 else 12}
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(),
            loc="outside lower center",
            handletextpad=0.1,
            columnspacing=1,
            **identities,
        )
    return figure


def embedding_numbers(
    inside: InsideFeatures, *, method: str, pids: Sequence[int] = (), seed: int = 0
) -> dict[str, Any]:
    """What was embedded: the method, the number of images, and the identities that have a colour."""
    chosen, people = chosen_images(inside, pids=pids, seed=seed)
    names = [name for name in SHOWN if name in inside.features]
    return {"method": method, "seed": seed, "images": len(chosen), "pids": people.tolist(), "features": names}


def chosen_images(inside: InsideFeatures, *, pids: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The lines of `inside` that are embedded, ascending, and the identities that have a colour, ascending.

    Raises InputError if no image shows one of `pids`.
    """
    own = inside.table["pid"].to_numpy()
    known = np.unique(own)
    for pid in pids:
        if pid not in known:
            some = ", ".join(map(str, known[:8].tolist())) + (", ..." if len(known) > 8 else "")
            raise InputError(f"pids={pid}: no image shows identity {pid}; there are {some}")
    random = np.random.default_rng(seed)
    people = np.sort(np.asarray(pids) if pids else random.choice(known, min(PEOPLE, len(known)), replace=False))
    coloured = np.flatnonzero(np.isin(own, people))
    others = random.permutation(np.flatnonzero(~np.isin(own, people)))[: max(0, MOST - len(coloured))]
    return np.sort(np.concatenate([coloured, others])), people


def embedded(inside: InsideFeatures, chosen: np.ndarray, *, method: str, seed: int) -> Planes:
    """(m, 2) positions in the plane of the lines `chosen`, for each feature of `SHOWN` that there is.

    t-SNE runs in one thread, because the order in which threads add changes its result.
    """
    check_choice("method", method, METHODS)
    names = [name for name in SHOWN if name in inside.features]
    planes = {}
    with tqdm(names, desc=method, unit="feature", disable=None, leave=False) as bar:
        for name in bar:
            values = inside.features[name][chosen].astype(np.float64)
            values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float64).tiny)
            planes[name] = _plane(values, method, seed)
    return planes


def _plane(values: np.ndarray, method: str, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    with threadpool_limits(1):
        wide = 2 if method == "pca" else _WIDE
        found: np.ndarray = PCA(min(wide, *values.shape), svd_solver="full").fit_transform(values)
        if method == "tsne" and len(found) > 3:
            perplexity = min(30.0, (len(found) - 1) / 3)
            found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(found)
    return found[:, :2] if found.shape[1] > 1 else np.c_[found, np.zeros(len(found))]


def _by_identity(axes: Axes, points: np.ndarray, own: np.ndarray, modalities: np.ndarray, people: np.ndarray) -> None:
    for modality, (marker, _) in _MARKERS.items():
        rest = (modalities == modality) & ~np.isin(own, people)
        axes.scatter(points[rest, 0], points[rest, 1], s=3, marker=marker, color="#D0D0D0", linewidths=0)
    for at, pid in enumerate(people):
        colour = _COLOURS[at % len(_COLOURS)]
        face = "white" if at // len(_COLOURS) % 2 else colour
        for modality, (marker, _) in _MARKERS.items():
            one = points[(modalities == modality) & (own == pid)]
            label = str(pid) if modality == "vis" else None
            axes.scatter(
                one[:, 0], one[:, 1], s=9, marker=marker, facecolor=face, edgecolor=colour, linewidths=0.8, label=label
            )


def _by_modality(axes: Axes, points: np.ndarray, modalities: np.ndarray) -> None:
    for (modality, (marker, label)), colour in zip(_MARKERS.items(), (BLUE, VERMILION), strict=True):
        one = points[modalities == modality]
        axes.scatter(one[:, 0], one[:, 1], s=5, marker=marker, color=colour, linewidths=0, alpha=0.6, label=label)
