"""Whether the paper's central claim is true for a run: what Z^B holds more of than the detail features, and less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from bdlf.inside.probes import ALL, DETAIL, SHARING, SPECIFIC
from bdlf.inside.style import BLUE, GREY, MATHS, OKABE_ITO, VERMILION, WIDTHS, blank, styled
from bdlf.system.screen_table import print_line, print_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLAIMS = (
    ("shared", ALL, +1, "{base} holds more of the factors that both modalities show than {detail}"),
    (SPECIFIC, ALL, -1, "{base} holds less of the factors that only one modality shows than {detail}"),
    ("modality", "modality", -1, "{base} tells the modality less well than {detail}"),
    ("retrieval", "mAP", +1, "{base} finds the person in the other modality better than {detail}"),
)
"""Group and target of a difference between Z^B and a detail feature, the sign that the paper claims, and the claim."""
_MORE = {
    "shared": "more shared",
    SPECIFIC: "less specific",
    "modality": "less modality",
    "retrieval": "better mAP",
}
"""The claims in few words, as the figure writes them, by their group."""
TRUTH = "factors"
"""The control that holds everything there is to know."""
PANELS = (
    ("modality", "modality", "modality\nbalanced acc., %"),
    ("camera", ALL, "camera\nabove chance, %"),
    ("retrieval", "mAP", "retrieval\nmAP, %"),
    ("retrieval", "rank1", "retrieval\nrank-1, %"),
    ("shared", ALL, "shared factors\nabove chance, %"),
    ("visible", ALL, "visible-only factors\nabove chance, %"),
    ("infrared", ALL, "infrared-only factors\nabove chance, %"),
    ("nuisance", ALL, "nuisances\nabove chance, %"),
)
"""Group and target of each column of the table and each panel of the figure, and its heading."""


class Verdict(NamedTuple):
    """One claim, and what the difference says about it."""

    claim: str
    group: str
    detail: str
    """The feature that Z^B is compared with."""
    sign: int
    """+1 if the paper claims that the difference is positive, else -1."""
    verdict: str
    """`yes`, `no`, or `undecided`: whether the interval of the difference excludes 0, and on which side."""
    difference: float
    """Z^B minus the detail feature, in points."""
    low: float
    high: float


def verdicts(probes: pd.DataFrame) -> list[Verdict]:
    """What the differences in the rows of `bdlf.inside.probe` say about the paper's central claim.

    There is a verdict for each of `CLAIMS` and each detail feature, as far as the features and targets exist.
    """
    found = []
    for detail in DETAIL:
        for group, target, sign, claim in CLAIMS:
            for row in _rows(probes, f"{SHARING} - {detail}", group, target):
                nearer, farther = sorted((sign * row["low"], sign * row["high"]))
                word = "yes" if nearer > 0 else "no" if farther <= 0 else "undecided"
                text = claim.format(base=SHARING, detail=detail)
                found.append(Verdict(text, group, detail, sign, word, row["score"], row["low"], row["high"]))
    return found


def _rows(probes: pd.DataFrame, feature: str, group: str, target: str) -> list[dict]:
    """The row with this feature, group and target, or none."""
    chosen = (probes["feature"] == feature) & (probes["group"] == group) & (probes["target"] == target)
    found: list[dict] = probes[chosen].to_dict("records")
    return found


def print_probes(probes: pd.DataFrame, title: str) -> None:
    """Print a table of the probes: a line for each feature, the half width of the 95 % interval behind each score."""
    panels = [panel for panel in PANELS if _shown(probes, panel)]
    features = _features(probes)
    lines = [["chance", *(f"{_chance(probes, group, target):.1f}" for group, target, _ in panels)]]
    for feature in features:
        cells = []
        for group, target, _ in panels:
            (row,) = _rows(probes, feature, group, target)
            cells.append(f"{row['score']:.1f} ±{(row['high'] - row['low']) / 2:.1f}")
        lines.append([feature, *cells])
    headings = ["feature", *(heading.partition("\n")[0] for _, _, heading in panels)]
    for number, (group, target, _) in enumerate(panels, 1):
        headings[number] = target if group == "retrieval" else headings[number].replace(" factors", "")
    print_table(headings, lines, title=title, figures=range(1, len(headings)))
    print_line(
        "modality: balanced accuracy; mAP and rank1: percent, as the run is scored; others: 0 is chance, 100 perfect"
    )
    print_line("±: half the 95 % interval over identities; each identity is read by probes fitted on other identities")
    for one in verdicts(probes):
        print_line(f"{one.claim}: {one.verdict}, {one.difference:+.1f} points [{one.low:+.1f}, {one.high:+.1f}]")


def _features(probes: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(probes["feature"]) if " - " not in name]


def _shown(probes: pd.DataFrame, panel: tuple[str, str, str]) -> bool:
    return bool(_rows(probes, _features(probes)[0], *panel[:2]))


def _chance(probes: pd.DataFrame, group: str, target: str) -> float:
    (row,) = _rows(probes, _features(probes)[0], group, target)
    return float(row["chance"])


def probes_figure(probes: pd.DataFrame, title: str, *, width: int = WIDTHS[1]) -> Figure:
    """A panel for each kind of target, with a point and a 95 % interval over identities for each feature.

    The dotted line is chance. Controls are grey squares; where "factors" lies far to the right, its score is written at
    the edge. A last panel has the differences of `verdicts`, turned so that what the paper claims is on the right.
    `width` is that of `bdlf.inside.style.blank`, in mm.
    """
    panels = [panel for panel in PANELS if _shown(probes, panel)]
    features, found = _features(probes), verdicts(probes)
    columns = 2 if width == WIDTHS[1] else 4
    lines = -(-len(panels) // columns)
    heights = [lines * (13 + 3.2 * len(features)), *([13 + 3.2 * len(found)] if found else [])]
    with styled():
        figure = blank(width, sum(heights) + 6)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for number, panel in enumerate(panels):
            axes = parts[0].add_subplot(lines, columns, number + 1)
            _panel(axes, probes, features, panel)
            if number % columns:
                axes.set_yticklabels([])
        if found:
            _verdict_panel(parts[1].add_subplot(), found)
        figure.suptitle(title)
    return figure


def _panel(axes: Axes, probes: pd.DataFrame, features: Sequence[str], panel: tuple[str, str, str]) -> None:
    group, target, heading = panel
    chance = _chance(probes, group, target)
    rows = {feature: _rows(probes, feature, group, target)[0] for feature in features}
    ends = [max(row["score"], row["high"] or 0) for feature, row in rows.items() if feature != TRUTH]
    most = max([*ends, chance + 10]) * 1.15
    for place, (feature, row) in enumerate(rows.items()):
        if feature == TRUTH and row["score"] > most:
            axes.text(most, place, f"{row['score']:.0f} ▸", ha="right", va="center", color=GREY)
            continue
        reach = np.nan_to_num([[row["score"] - row["low"]], [row["high"] - row["score"]]])
        colour = OKABE_ITO[list(MATHS).index(feature)] if feature in MATHS else GREY
        marker = "o" if feature in MATHS else "s"
        axes.errorbar([row["score"]], [place], xerr=reach, fmt=marker, color=colour, markersize=3, capsize=1.5)
    axes.axvline(chance, color="black", linestyle=":", linewidth=0.8)
    axes.set_title(heading)
    axes.set_yticks(range(len(features)), [MATHS.get(feature, feature) for feature in features])
    axes.set_ylim(len(features) - 0.5, -0.5)
    lowest = min(row["low"] if np.isfinite(row["low"]) else row["score"] for row in rows.values())
    axes.set_xlim(min(lowest, 0.0) - 0.03 * most, min(most, 104.0))
    axes.grid(axis="x", alpha=0.3, linewidth=0.4)


def _verdict_panel(axes: Axes, found: Sequence[Verdict]) -> None:
    colours = {"yes": BLUE, "no": VERMILION, "undecided": GREY}
    for place, one in enumerate(found):
        low, high = sorted((one.sign * one.low, one.sign * one.high))
        value, colour = one.sign * one.difference, colours[one.verdict]
        reach = np.nan_to_num([[value - low], [high - value]])
        axes.errorbar([value], [place], xerr=reach, fmt="D", color=colour, markersize=3, capsize=1.5)
        axes.text(1.02, place, one.verdict, transform=axes.get_yaxis_transform(), color=colour, va="center")
    axes.axvline(0, color="black", linestyle=":", linewidth=0.8)
    names = [f"{_MORE[one.group]} than {MATHS[one.detail]}" for one in found]
    axes.set_yticks(range(len(found)), names)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_title(f"the claims about {MATHS[SHARING]}: points in the claimed direction")
    axes.grid(axis="x", alpha=0.3, linewidth=0.4)
