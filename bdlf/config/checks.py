"""Sizes that no run can have: refused before anything is allocated."""

from __future__ import annotations

import os

from bdlf.config import Config
from bdlf.system.errors import InputError
from bdlf.system.memory import require_memory

_MOST_PIXELS = 1 << 20  # of an image: 19 times the paper's; no dataset has larger ones
_MOST_BLOCKS = 64  # the paper tries 1 to 8
_STEM_BYTES = 128  # for each pixel of a batch, what the first convolution and its BatchNorm keep: 2 x 64 / 4 float32


def check_sizes(config: Config) -> None:
    """Raise InputError, naming the key, for a size that would exhaust the machine, or its user, before it fails."""
    height, width, pad = config.image.height, config.image.width, config.augment.pad
    if height * width > _MOST_PIXELS:
        raise InputError(f"image.height={height} x image.width={width}: give at most {_MOST_PIXELS:,} pixels")
    if config.augment.crop and pad >= min(height, width):
        raise InputError(
            f"augment.pad={pad}: less than image.height and image.width is needed, or a crop shows nothing"
        )
    if config.dfe.blocks > _MOST_BLOCKS:
        raise InputError(f"dfe.blocks={config.dfe.blocks}: give at most {_MOST_BLOCKS}; the paper tries 1 to 8")
    most = max(64, os.cpu_count() or 1)
    if config.threads is not None and config.threads > most:
        raise InputError(f"threads={config.threads}: give at most {most}; more than there are processors only wait")
    images = 2 * config.batch.identities * config.batch.images
    batch = f"batch.identities={config.batch.identities} x batch.images={config.batch.images}"
    require_memory(batch, "the first convolution", images * height * width * _STEM_BYTES)
