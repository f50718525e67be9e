"""Anti-aliased shapes on a stack of images, by scanline: a shape is a centre and a half width for each row.

Lengths are in frame heights; the frame is 1 high and, whatever its pixels, 0.5 wide, with x from -0.25 to 0.25 and y
from 0 (top) to 1. Edges are one pixel soft, so a shift by part of a pixel changes the image by as much.
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
    """`count` images of `channels` planes, painted back to front. `blur` is the softness of edges in pixels."""

    def __init__(self, count: int, channels: int, height: int, width: int, blur: float) -> None:
        self.x = (((np.arange(width) + 0.5) / width - 0.5) * FRAME_WIDTH).astype(np.float32)
        self.y = ((np.arange(height) + 0.5) / height)[None].astype(np.float32)
        self.soft_x = np.float32(blur * FRAME_WIDTH / width)
        self.soft_y = np.float32(blur / height)
        self.planes = np.zeros((channels, count, height, width), np.float32)

    def between(self, top: Column | float, bottom: Column | float) -> Rows:
        """How much of each row lies between `top` and `bottom`: 0 to 1."""
        above = np.clip((self.y - top) / self.soft_y + 0.5, 0, 1)
        covered: Rows = above * np.clip((bottom - self.y) / self.soft_y + 0.5, 0, 1)
        return covered

    def along(self, ys: list[Column], values: list[Column]) -> Rows:
        """The polyline through (`ys[k]`, `values[k]`) at each row, constant beyond its ends; `ys` ascend."""
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
        """Lays `colour` over the rows' spans `centre` +- `half`, as opaque as `cover` and `texture` (0 to 1) say."""
        cover = cover * np.clip(2 * half / self.soft_x, 0, 1)  # a sliver covers only part of its pixel
        shown = cover > 0
        if not shown.any():
            return
        # Only the rectangle that the shape touches in any image is computed: outside it, opacity is exactly zero.
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
        """Paints the ellipse about (`x`, `y`) with half axes `width` and `height`, where `cover` lets it."""
        half = width * np.sqrt(np.clip(1 - ((self.y - y) / height) ** 2, 0, 1))
        self.paint(colour, x, half, self.between(y - height, y + height) * cover)
