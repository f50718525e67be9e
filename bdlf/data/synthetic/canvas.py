"""Draws anti-aliased shapes on a stack of images. A shape is a centre and a half width for each row of pixels.

Lengths are in frame heights. A frame is 1 high and 0.5 wide, whatever its size in pixels: x runs from -0.25 to 0.25,
and y from 0 (top) to 1. Edges are soft over about one pixel, so a shift by a fraction of a pixel changes the image in
proportion.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

FRAME_WIDTH = 0.5

Colour = Float32[ndarray, "c n"]
"""One value for each plane and image, 0 to 1."""
Column = Float32[ndarray, "n 1"]
"""One number for each image."""
Rows = Float32[ndarray, "n h"]
"""One number for each image and row."""


class Canvas:
    """`count` images of `height` x `width` pixels with `channels` planes each. Later shapes cover earlier ones.

    `blur` is the width of soft edges in pixels.
    """

    def __init__(self, count: int, channels: int, height: int, width: int, blur: float) -> None:
        self.x = (((np.arange(width) + 0.5) / width - 0.5) * FRAME_WIDTH).astype(np.float32)
        self.y = ((np.arange(height) + 0.5) / height)[None].astype(np.float32)
        self.soft_x = np.float32(blur * FRAME_WIDTH / width)
        self.soft_y = np.float32(blur / height)
        self.planes = np.zeros((channels, count, height, width), np.float32)

    def between(self, top: Column | float, bottom: Column | float) -> Rows:
        """The share of each row of pixels, 0 to 1, that lies between `top` and `bottom`."""
        above = np.clip((self.y - top) / self.soft_y + 0.5, 0, 1)
        covered: Rows = above * np.clip((bottom - self.y) / self.soft_y + 0.5, 0, 1)
        return covered

    def along(self, ys: list[Column], values: list[Column]) -> Rows:
        """The value at each row of the polyline through the points (`ys[k]`, `values[k]`), with ascending `ys`.

        Above the first point and below the last one the value is constant.
        """
        result: Rows = np.broadcast_to(values[0], (len(values[0]), self.y.shape[1])).copy()
        for k in range(len(ys) - 1):
            step = np.clip((self.y - ys[k]) / np.maximum(ys[k + 1] - ys[k], 1e-6), 0, 1)
            result += (values[k + 1] - values[k]) * step
        return result

    def paint(
        self,
        colour: Colour,
        centre: Column | Rows,
        half: Column | Rows,
        cover: Rows,
        texture: Float32[ndarray, "n h w"] | None = None,
    ) -> None:
        """Paints `colour` over the span `centre` +- `half` of each row.

        The opacity of a pixel is `cover` of its row times `texture`, both 0 to 1.
        """
        cover = cover * np.clip(2 * half / self.soft_x, 0, 1)  # a span narrower than a pixel covers part of it
        shown = cover > 0
        if not shown.any():
            return
        # Compute only the rectangle that the shape touches in any image: outside it, the opacity is exactly zero.
        centre, half = np.broadcast_to(centre, cover.shape), np.broadcast_to(half, cover.shape)
        left, right = (centre - half - self.soft_x)[shown].min(), (centre + half + self.soft_x)[shown].max()
        rows, columns = np.flatnonzero(shown.any(axis=0)), np.flatnonzero((self.x > left) & (self.x < right))
        if not columns.size:
            return
        row, column = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        alpha = np.abs(self.x[column] - centre[:, row, None])
        np.subtract(half[:, row, None], alpha, out=alpha)
        alpha /= self.soft_x
        alpha += 0.5
        np.clip(alpha, 0, 1, out=alpha)
        alpha *= cover[:, row, None]
        if texture is not None:
            alpha *= texture[:, row, column]
        for plane, value in zip(self.planes, colour, strict=True):
            patch = plane[:, row, column]
            patch += alpha * (value[:, None, None] - patch)

    def ellipse(
        self, colour: Colour, x: Column, y: Column, width: Column, height: Column, cover: Rows | Column | float = 1.0
    ) -> None:
        """Paints the ellipse with centre (`x`, `y`) and half axes `width` and `height`, with opacity `cover`."""
        half = width * np.sqrt(np.clip(1 - ((self.y - y) / height) ** 2, 0, 1))
        self.paint(colour, x, half, self.between(y - height, y + height) * cover)
