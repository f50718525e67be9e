"""Every figure by name: how it is drawn, and the title, the caption and the numbers that go with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bdlf.inside.attention import PEOPLE, attention_figure, attention_numbers, shown_images
from bdlf.inside.batch import batch_figure, batch_numbers
from bdlf.inside.distances import MOST, SHOWN, distances_figure, distances_numbers
from bdlf.inside.embedding import embedding_figure, embedding_numbers
from bdlf.inside.heat import COMPREHENSIVE, DETAIL, MAPS, attention_maps
from bdlf.inside.material import Material
from bdlf.inside.ranking import rank, ranking_figure, ranking_numbers
from bdlf.inside.terms import terms_figure, terms_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure, and what a reader is told with it."""

    name: str
    title: str
    caption: str
    """Whole sentences. They say how the figure was made, and its numbers."""
    alt: str
    """What the figure shows, for those who do not see it."""
    figure: Figure
    numbers: dict[str, Any]


def draw(name: str, material: Material) -> Drawing:
    """Draw the figure `name`, one of `DRAWINGS`. Raises InputError if the material does not have what it needs."""
    return DRAWINGS[name](material)


def _attention(material: Material) -> Drawing:
    config = material.config
    maps = attention_maps(material.run, stage=config.stage, of=config.map, device=material.device)
    shown = shown_images(maps, pids=material.pids, people=PEOPLE[config.width])
    figure = attention_figure(maps, material.take(maps.rows[shown]), shown, width=config.width)
    numbers = attention_numbers(maps)
    caption = (
        f"Heat is {MAPS[maps.of]} (map={maps.of}). Each map is divided by its own maximum. The comprehensive map is "
        f"the output of stage {maps.stage} of the backbone. {_widths(numbers)}"
    )
    alt = f"Heatmaps of {len(shown)} test images, visible and infrared: {' and '.join(maps.heat)}."
    return Drawing("attention", "Where the network looks", caption, alt, figure, numbers)


def _widths(numbers: dict[str, Any]) -> str:
    """How wide the maps are, in sentences."""
    told = []
    for name in (COMPREHENSIVE, DETAIL):
        if name in numbers:
            area, entropy = (_interval(numbers[name][measure]) for measure in ("area", "entropy"))
            height, width = numbers[name]["size"]
            empty = numbers[name]["without_heat"]
            told.append(
                f"{name} maps ({height}×{width}) have {area} of their area above half of the maximum and an "
                f"entropy of {entropy}" + (f", {empty} images without heat left out" if empty else "")
            )
    text = "; ".join(told)
    over = f"Mean over {numbers['identities']} test identities, with 95 % intervals: {text}. "
    difference = numbers.get("detail_minus_comprehensive")
    if DETAIL not in numbers:
        return over + "This network has no invertible blocks, so there is no detail map."
    if difference is None:
        return over + "As their sizes differ, these widths cannot be compared; leave stage= out to compare one size."
    verdicts = {measure: _verdict(difference[measure]) for measure in ("area", "entropy")}
    return over + f"By area detail maps are {verdicts['area']}, by entropy {verdicts['entropy']}."


def _verdict(difference: dict[str, float | None]) -> str:
    """Whether detail maps are narrower, from the interval of detail minus comprehensive."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None or low <= 0 <= high:
        word = "not distinguishable from comprehensive ones"
    else:
        word = "narrower" if high < 0 else "wider"
    return f"{word} (difference {_interval(difference)})"


def _interval(values: dict[str, float | None]) -> str:
    if values["mean"] is None:
        return "no value"
    ends = "" if values["low"] is None else f" [{values['low']:.2f}, {values['high']:.2f}]"
    return f"{values['mean']:.2f}{ends}"


def _ranking(material: Material) -> Drawing:
    config = material.config
    ranking = rank(material.inside, material.table, material.setting, trial=config.trial)
    figure = ranking_figure(ranking, material.table, material.take, pids=material.pids, width=config.width)
    numbers = ranking_numbers(ranking, material.table, pids=material.pids)
    caption = (
        f"Protocol {numbers['protocol']}, trial {numbers['trial']}, with mAP {numbers['mAP']:.1f} %. Above an image "
        "stand its rank, its identity and its camera. Images that the protocol hides from a query are left out. A "
        "solid blue frame with a check mark is right, a dashed vermilion frame with a cross is wrong."
    )
    alt = f"{len(numbers['queries'])} queries, each with the first ten images of the gallery, marked as right or wrong."
    return Drawing("ranking", "Queries and what they find", caption, alt, figure, numbers)


def _embedding(material: Material) -> Drawing:
    config, inside = material.config, material.inside
    options: dict[str, Any] = {"method": config.method, "pids": material.pids, "seed": config.seed}
    figure = embedding_figure(inside, width=config.width, **options)
    numbers = embedding_numbers(inside, **options)
    words = {"tsne": "t-SNE", "pca": "PCA"}[config.method]
    caption = (
        f"{words} of L2-normalised features of {numbers['images']} test images, seed {config.seed}. Circles are "
        f"visible images, triangles infrared ones; {len(numbers['pids'])} identities have a colour, hollow or filled. "
        f"The axes have no unit.{_lacking(material)}"
    )
    alt = f"Scatter plots of {', '.join(numbers['features'])} in the plane, coloured by identity and by modality."
    return Drawing("embedding", "Features in the plane", caption, alt, figure, numbers)


def _distances(material: Material) -> Drawing:
    config, inside = material.config, material.inside
    figure = distances_figure(inside, width=config.width, seed=config.seed)
    numbers = distances_numbers(inside, seed=config.seed)
    some = f" of {MOST} test images, drawn with seed {config.seed}" if len(inside.table) > MOST else " of test images"
    caption = (
        f"Cosine distances of all pairs{some}. The overlap is the share that both histograms have in common: 0 if a "
        f"threshold separates the identities, 1 if the distance says nothing of them.{_lacking(material)}"
    )
    alt = (
        f"Histograms of distances of {', '.join(numbers)}, within and across modalities, of same and other identities."
    )
    return Drawing("distances", "Distances within and between identities", caption, alt, figure, numbers)


def _lacking(material: Material) -> str:
    """A sentence on the features that the network lacks, or nothing."""
    lacking = [name for name in SHOWN if name not in material.inside.features]
    if not lacking or material.config.features is not None:
        return ""
    return f" This network has no {', '.join(lacking)}."


def _batch(material: Material) -> Drawing:
    run = material.untrained
    figure = batch_figure(run, width=material.config.width)
    numbers = batch_numbers(run)
    caption = (
        f"The first training batch after augmentation: {numbers['images_of_each']} images of {len(numbers['pids'])} "
        f"identities in each of {len(numbers['views'])} views ({'; '.join(numbers['views'])}). The number above an "
        "image is its identity. The normalisation is undone."
    )
    alt = f"Training images in {len(numbers['views'])} views: {'; '.join(numbers['views'])}."
    return Drawing("batch", "What the network is fed", caption, alt, figure, numbers)


def _terms(material: Material) -> Drawing:
    runs = material.runs
    figure = terms_figure(runs, width=material.config.width)
    caption = (
        f"Runs: {', '.join(runs)}. A panel is a column of metrics.csv: the mean over the steps of an epoch, without "
        "weight. The last panel has the weights, which grow for ramped terms. Correlations compare the modalities, "
        "row by row of a batch; attention_own is the share of attention on rows of the own identity."
    )
    alt = f"Curves of every loss term, correlation and weight over the epochs of {', '.join(runs)}."
    return Drawing("terms", "Terms of the loss", caption, alt, figure, terms_numbers(runs))


DRAWINGS: dict[str, Callable[[Material], Drawing]] = {
    "attention": _attention,
    "ranking": _ranking,
    "embedding": _embedding,
    "distances": _distances,
    "batch": _batch,
    "terms": _terms,
}
"""How each figure is drawn, by its name in `what=`."""
