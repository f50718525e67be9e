"""Marks images of one single value, without colours, or of more than 8 bits.

Decoding finds this out, and the image cache keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from numpy import ndarray

from bdlf.datasets.decoding import RANGES, WIDE
from bdlf.system.wording import printable

CONSTANT, GREY, WIDE_GREY = 1, 2, 4
"""The marks, which are added up: all pixels have one colour; the three channels are equal, or nearly so; the file holds
grey values of more than 8 bits."""
_STEP = 4  # only every fourth pixel of every fourth line is looked at for GREY
_TINT = 2.0  # levels of 255 between the channels, on average, that JPEG and white balance leave in a grey image
_NAMED = 5  # images that a message names


def mark(pixels: UInt8[ndarray, "h w 3"], mode: str = "RGB") -> int:
    """The sum of the marks that the image deserves. `mode` is that of its file, as Pillow names it."""
    some = pixels[::_STEP, ::_STEP]
    first = pixels[0, 0]
    constant = (some == first).all() and (pixels == first).all()
    red, green, blue = some[..., 0], some[..., 1], some[..., 2]
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return CONSTANT * bool(constant) + GREY * bool((highest - lowest).mean() <= _TINT) + WIDE_GREY * (mode in WIDE)


def marked_findings(table: pd.DataFrame, marks: np.ndarray) -> list[str]:
    """Lines that say which images of a listing have one single value, and whether the modalities look swapped."""
    lines = []
    constant = table["path"].to_numpy()[(marks & CONSTANT) != 0]
    if len(constant):
        some = ", ".join(constant[:_NAMED]) + (", ..." if len(constant) > _NAMED else "")
        lines.append(
            f"{len(constant):,} of {len(table):,} images have one single value in all pixels: {printable(some)}: "
            "restore them from the dataset"
        )
    message = swapped_modalities(table["modality"], marks)
    return lines if message is None else [*lines, message]


def rule_for_wide(marks: Sequence[int] | np.ndarray, value_range: str) -> str | None:
    """A line that says how many images have more than 8 bits, and by which rule they were read; None if none has.

    `value_range` is `image.range`.
    """
    wide = int(np.count_nonzero(np.asarray(marks, np.uint8) & WIDE_GREY))
    if not wide:
        return None
    return (
        f"{wide:,} of {len(marks):,} images have grey values of more than 8 bits; image.range={value_range}: "
        f"{RANGES[value_range]}"
    )


def swapped_modalities(modalities: Sequence[str] | pd.Series, marks: Sequence[int] | np.ndarray) -> str | None:
    """A line that says so if most visible images are grey and most infrared images have colours; None otherwise.

    Both must hold, because there are correct datasets with grey visible images, and others with thermal images in false
    colours.
    """
    grey = pd.Series((np.asarray(marks, np.uint8) & GREY) != 0).groupby(np.asarray(modalities)).mean()
    if not {"vis", "ir"} <= set(grey.index) or not (grey["vis"] > 0.5 and grey["ir"] < 0.5):
        return None
    return (
        f"the modalities look swapped: {100 * grey['vis']:.0f} % of the visible images are grey, "
        f"{100 * (1 - grey['ir']):.0f} % of the infrared ones have colours: exchange their folders"
    )
