"""Colours, sizes and file formats of all figures: colour-blind safe, legible at the width of a column of a paper."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bdlf.system.errors import check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS = (170, 85)
"""Widths of a figure in mm: both columns of a two-column page, or one."""
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
"""The colours of Okabe and Ito (2008), which people with any form of colour blindness can tell apart."""
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK, YELLOW = OKABE_ITO
GREY = "#767676"
LINES = ("-", "--", "-.", ":")
MATHS = {
    "Z": "$Z$",
    "Z_B": "$Z^B$",
    "Z_D": "$Z^D$",
    "Zbar_D": r"$\bar{Z}^D$",
    "Z_M": "$Z^M$",
}
"""How a figure writes the names of `bdlf.inside.features.FEATURES`."""
_DPI = 220
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, and has the marks for right and wrong
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "figure.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "lines.linewidth": 1.1,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "legend.frameon": False,
    "mathtext.fontset": "dejavusans",
    "svg.hashsalt": "bdlf",  # else the names inside an SVG file differ on every call
    "svg.fonttype": "path",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


@contextmanager
def styled() -> Iterator[None]:
    """The settings of matplotlib for the figures of this package. They hold inside the block alone."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def blank(width: int, height: float) -> Figure:
    """An empty figure of `width` x `height` mm, laid out without overlaps. Raises InputError for an unknown width."""
    from matplotlib.figure import Figure

    check_choice("width", width, WIDTHS)
    return Figure(figsize=(width / 25.4, height / 25.4), layout="constrained")


def picture(figure: Figure, form: str) -> bytes:
    """A figure as the bytes of a file; `form` is `png` or `svg`. The same figure always gives the same bytes."""
    written = io.BytesIO()
    with styled():
        metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        figure.savefig(written, format=form, dpi=_DPI, metadata=metadata)
    return written.getvalue()


def bare(axes: Axes) -> None:
    """Remove ticks and frame, for axes that show an image."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
