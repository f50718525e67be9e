"""Refuses values that no run can have, before anything is read or allocated. The message names the key."""

from __future__ import annotations

import os

from bdlf.config.schema import Config
from bdlf.system.errors import InputError, check_choice
from bdlf.system.memory import require_memory

PRECISIONS = ("32-true", "bf16-mixed")
COMPILES = ("none", "default", "reduce-overhead", "max-autotune")
"""Modes of torch.compile; `reduce-overhead` and `max-autotune` take CUDA graphs on a GPU."""
TRACKERS = ("wandb", "none")
_MOST_PIXELS = 1 << 20  # of an image; 19 times as many as in the paper
_MOST_BLOCKS = 64  # the paper tries 1 to 8
_STEM_BYTES = 128  # that the first convolution and its BatchNorm keep for each pixel of a batch: 2 x 64 / 4 float32


def check_values(config: Config) -> None:
    """Raise InputError, naming the key, for a number or a name that would fail only later or would pass unnoticed."""
    _check_bounds(config)
    _check_sizes(config)
    _check_optimizer(config)
    check_choice("precision", config.precision, PRECISIONS)
    check_choice("compile", config.compile, COMPILES)
    check_choice("tracker.name", config.tracker.name, TRACKERS)


def _check_sizes(config: Config) -> None:
    """Raise InputError, naming the key, for a size that would exhaust the memory or would take far too long."""
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


def _check_bounds(config: Config) -> None:
    at_least = [
        ("seed", config.seed, 0),
        ("threads", config.threads, 1),
        ("evaluation.batch", config.evaluation.batch, 1),
        ("evaluation.every", config.evaluation.every, 1),
        ("batch.identities", config.batch.identities, 2),
        ("batch.images", config.batch.images, 1),
        ("checkpoint.every_minutes", config.checkpoint.every_minutes, 0),
        ("checkpoint.every_steps", config.checkpoint.every_steps, 1),
        ("checkpoint.keep", config.checkpoint.keep, 1),
        ("image.height", config.image.height, 1),
        ("image.width", config.image.width, 1),
        ("optimizer.backbone_scale", config.optimizer.backbone_scale, 0),
        ("optimizer.projection_scale", config.optimizer.projection_scale, 0),
        ("optimizer.weight_decay", config.optimizer.weight_decay, 0),
        ("loss.tri.margin", config.loss.tri.margin, 0),
        ("loss.skd.gamma", config.loss.skd.gamma, 0),
    ]
    for key, value, least in at_least:
        if value is not None and value < least:
            raise InputError(f"{key}={value}: {least} or more is needed")
    for key, value in (("loss.dcorr.gamma", config.loss.dcorr.gamma), ("loss.skd.delta", config.loss.skd.delta)):
        if not value > 0:
            raise InputError(f"{key}={value}: a number above 0 is needed, or the term divides by 0")
    if config.ema.enabled and not 0 <= config.ema.decay < 1:
        raise InputError(f"ema.decay={config.ema.decay}: a number in [0, 1) is needed")


def _check_optimizer(config: Config) -> None:
    rates = config.optimizer
    if not rates.lr > 0:
        raise InputError(f"optimizer.lr={rates.lr}: a number above 0 is needed")
    if rates.clip is not None and not rates.clip > 0:
        raise InputError(f"optimizer.clip={rates.clip}: a number above 0 is needed, or null for no clipping")
    if not 0 <= rates.momentum < 1 or (rates.nesterov and rates.momentum == 0):
        raise InputError(f"optimizer.momentum={rates.momentum}: a number in (0, 1) is needed, 0 with nesterov=false")
