"""Draws the images of a synthetic listing: one walking person in each, in colour or in infrared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
from jaxtyping import Float64, UInt8
from numpy import ndarray

from bdlf.data.synthetic.canvas import FRAME_WIDTH, Canvas, Column
from bdlf.data.synthetic.factors import FACTOR_KINDS, SHARED_CLASSES, synthetic_listing
from bdlf.data.synthetic.person import Person, Silhouette
from bdlf.system.errors import InputError

BLUR = {"vis": 1.0, "ir": 1.5}
"""Width of soft edges in pixels, for each modality."""
_CHUNK = 16  # how many images are drawn at once: the planes of so many fit in the processor's cache
_PROBE_SEED = 1272
"""The seed of the probes. Among the seeds 0 to 2999, its `_probe_numbers` stay farthest from a boundary of rounding."""
_LEVEL_STEP, _CONTRAST_STEP = 2.0, 0.5
"""The steps, in grey levels, to which the numbers of the stamp are rounded."""


def render(listing: pd.DataFrame, height: int, width: int) -> UInt8[ndarray, "n {height} {width} 3"]:
    """The images of a synthetic `listing`: any rows of `synthetic_listing`, with at least its factors and `modality`.

    `height` and `width` are in pixels. Image i depends only on row i. Visible images are in colour, infrared images are
    grey. Raises `InputError` for a missing factor, an unknown modality, or images below 8 x 4 pixels.
    """
    return _render(listing, height, width, _draw)


def render_silhouettes(listing: pd.DataFrame, height: int, width: int) -> UInt8[ndarray, "n {height} {width} 3"]:
    """The body-shape maps of the images that `render` draws: how much of each pixel the person covers.

    0 is no person and 255 is a pixel that the person fills. The three channels are equal. Clothes, hair and hats belong
    to the person. Bags do not, and nothing does that an occluder hides. Edges are as soft as those of the image. A map
    has neither light nor noise. Raises `InputError` where `render` does.
    """
    return _render(listing, height, width, _draw_silhouettes)


def _render(
    listing: pd.DataFrame,
    height: int,
    width: int,
    draw: Callable[[dict[str, ndarray], bool, int, int], UInt8[ndarray, "c n h w"]],
) -> UInt8[ndarray, "n {height} {width} 3"]:
    missing = [name for name in ["modality", *FACTOR_KINDS] if name not in listing]
    if missing:
        raise InputError(f"listing without factor {missing[0]!r}: only synthetic listings can be drawn")
    if height < 8 or width < 4:
        raise InputError(f"image size {height} x {width}: synthetic people need at least 8 x 4 pixels")
    images = np.empty((len(listing), height, width, 3), np.uint8)
    modality = listing["modality"].to_numpy()
    unknown = sorted(set(modality) - {"vis", "ir"})
    if unknown:
        raise InputError(f"unknown modality {unknown[0]!r}: choose one of vis, ir")
    factors = {name: listing[name].to_numpy(np.float64) for name in FACTOR_KINDS}
    for kind in ("vis", "ir"):
        rows = np.flatnonzero(modality == kind)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            planes = draw({name: column[chunk] for name, column in factors.items()}, kind == "ir", height, width)
            images[chunk] = planes.transpose(1, 2, 3, 0)  # a single plane becomes three equal channels
    return images


def contact_sheet(images: UInt8[ndarray, "n h w 3"], columns: int) -> UInt8[ndarray, "sheet_h sheet_w 3"]:
    """The images side by side, `columns` in each row, with two white pixels between them."""
    count, height, width, _ = images.shape
    sheet = np.full((-(-count // columns) * (height + 2), columns * (width + 2), 3), 255, np.uint8)
    for k, image in enumerate(images):
        top, left = k // columns * (height + 2), k % columns * (width + 2)
        sheet[top : top + height, left : left + width] = image
    return sheet


@cache
def drawing_stamp() -> str:
    """A SHA-256 in hexadecimal that identifies the drawing code, computed from twelve drawn images.

    The stamp changes when the images would look different. It is the same on processors whose sines differ in the last
    bit, because it hashes coarse numbers, none of which lies near a boundary of rounding. It is computed once in each
    process, in about 15 ms.
    """
    return hashlib.sha256(" ".join(f"{number:.0f}" for number in _probe_numbers()).encode()).hexdigest()


def _probe_numbers() -> Float64[ndarray, " numbers"]:
    """The numbers that `drawing_stamp` rounds to whole numbers and hashes.

    - The mean of each probe, channel and quarter of the height, in steps of `_LEVEL_STEP`.
    - For each probe, the root mean square of the differences between vertical and between horizontal neighbours, in
      steps of `_CONTRAST_STEP`. Their mean absolute value would not notice a change in the softness of edges.
    """
    images = render(_probes(), 48, 24).astype(np.float64)
    levels = images.reshape(len(images), 4, -1, 24, 3).mean(axis=(2, 3))
    contrasts = [np.sqrt(np.square(np.diff(images, axis=axis)).mean(axis=(1, 2, 3))) for axis in (1, 2)]
    return np.concatenate([levels.ravel() / _LEVEL_STEP, np.concatenate(contrasts) / _CONTRAST_STEP])


def _probes() -> pd.DataFrame:
    """Six people in both modalities. Together they show every class of every shared factor, and every occluder.

    The views are 15, 45, 75, ... degrees. At these views no part of a person is about to move from behind the body to
    before it.
    """
    probes = synthetic_listing(seed=_PROBE_SEED, train_identities=6, test_identities=0, images_per_identity=1)
    row = np.arange(len(probes))
    classes = {name: row // 2 % len(words) for name, words in SHARED_CLASSES.items()}
    shown: pd.DataFrame = probes.assign(**classes, occluder=row % 3, view=15.0 + 30 * row)
    return shown


def _draw(factors: dict[str, ndarray], infrared: bool, height: int, width: int) -> UInt8[ndarray, "c n h w"]:
    columns = {name: values[:, None].astype(np.float32) for name, values in factors.items()}
    canvas = Canvas(len(factors["view"]), 1 if infrared else 3, height, width, BLUR["ir" if infrared else "vis"])
    _paint_background(canvas, columns, infrared)
    Person(canvas, columns, infrared).paint()
    _paint_occluder(canvas, columns)
    return _expose(canvas, columns, factors["noise_seed"], infrared)


def _draw_silhouettes(
    factors: dict[str, ndarray], infrared: bool, height: int, width: int
) -> UInt8[ndarray, "1 n h w"]:
    columns = {name: values[:, None].astype(np.float32) for name, values in factors.items()}
    canvas = Canvas(len(factors["view"]), 1, height, width, BLUR["ir" if infrared else "vis"])
    Silhouette(canvas, columns, infrared).paint()
    _paint_occluder(canvas, {**columns, "occluder_shade": 0 * columns["occluder_shade"]})
    levels: UInt8[ndarray, "1 n h w"] = (canvas.planes * 255 + 0.5).astype(np.uint8)
    return levels


def _paint_background(canvas: Canvas, f: dict[str, Column], infrared: bool) -> None:
    """Paints a wall of vertical panels over a floor. Each camera has its own wall, which shifts between its images."""
    base = np.stack([f[f"background_{c}"][:, 0] for c in ("red", "green", "blue")])
    if infrared:
        base = base.mean(axis=0, keepdims=True)
    panels = np.sin(2 * np.pi * (f["background_frequency"] * canvas.x / FRAME_WIDTH + f["background_offset"]))
    wall = 1 + f["background_contrast"] * np.clip(2 * panels, -1, 1)
    floor = canvas.between(f["background_horizon"], 2.0)
    tiles = 0.75 + 0.5 * f["background_contrast"] * np.sin(30 * canvas.y**2 + 6 * f["background_offset"])
    structure = wall[:, None, :] * (1 - floor[:, :, None]) + (tiles * floor)[:, :, None]
    canvas.planes[:] = base[:, :, None, None] * structure


def _paint_occluder(canvas: Canvas, f: dict[str, Column]) -> None:
    shade = np.repeat(f["occluder_shade"].T, len(canvas.planes), axis=0)
    pole = (f["occluder"] == 1) * canvas.between(-1.0, 2.0)
    canvas.paint(shade, f["occluder_x"], 0.035 * f["occluder_size"], pole)
    box = (f["occluder"] == 2) * canvas.between(1 - 0.28 * f["occluder_size"], 2.0)
    canvas.paint(shade, f["occluder_x"], 0.16 * f["occluder_size"], box)


def _expose(canvas: Canvas, f: dict[str, Column], noise_seeds: ndarray, infrared: bool) -> UInt8[ndarray, "c n h w"]:
    """Applies light and tint, adds sensor noise, and rounds to 8 bits. Infrared noise also differs from row to row."""
    planes = canvas.planes
    slope = f["light"] * (1 + f["light_gradient"] * canvas.x / (FRAME_WIDTH / 2))
    for plane, channel in zip(planes, ("red", "green", "blue"), strict=False):
        plane *= (slope if infrared else slope * f[f"tint_{channel}"])[:, None, :]
    for k, seed in enumerate(noise_seeds):
        random = np.random.default_rng(int(seed))
        grain = random.standard_normal(planes[:, k].shape, np.float32)
        if infrared:
            grain += random.standard_normal((planes.shape[2], 1), np.float32)
        planes[:, k] += f["noise"][k] * grain
    levels: UInt8[ndarray, "c n h w"] = np.clip(planes * 255 + 0.5, 0, 255).astype(np.uint8)
    return levels
