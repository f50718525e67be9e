"""`dry_run=true`: what would run, and how long it would take; nothing is written and no image is read."""

from __future__ import annotations

import logging

import torch

from bdlf import build
from bdlf.active import active_weights, flat
from bdlf.commandline.jobs import announce, in_words
from bdlf.config import Config
from bdlf.networks.cost import gflops_per_image
from bdlf.parts import Parts
from bdlf.runs.folder import RunFolder
from bdlf.runs.speed import seconds_of
from bdlf.training.checkpoint import has_checkpoint

log = logging.getLogger("bdlf")


def describe(config: Config, folder: RunFolder, parts: Parts) -> None:
    """Say what a run of these parts would do in `folder`, and announce the seconds that it would take."""
    splits, sampler = parts.table["split"].value_counts(), parts.sampler
    state = f"{'goes on' if has_checkpoint(folder.checkpoint) and not config.rerun else 'starts'} in {folder.path}"
    log.info("dry run: %s", state)
    log.info("images     %s", ", ".join(f"{split} {count}" for split, count in splits.items()))
    log.info(
        "batches    %d epochs x %d steps of %d images",
        *(config.schedule.epochs, sampler.steps_per_epoch, sampler.batch_size),
    )
    log.info(
        "terms      %s",
        ", ".join(f"{name} x {weight:g}" for name, weight in active_weights(flat(config)).items()),
    )
    log.info("model      %d identities, %.1f M parameters", len(sampler.pids), parts.parameters / 1e6)
    log.info("scored     %s", "; ".join(setting.name for setting in parts.settings["test"]))
    log.info(
        "device     %s, %d threads, %s", build.accelerator(config.devices), torch.get_num_threads(), config.precision
    )
    device = parts.fabric.device
    gflops = parts.images * gflops_per_image(parts.network.to(device), config.image.height, config.image.width)[0]
    seconds, how = seconds_of(gflops, folder.path.parents[1], device, build.device_name(device))
    announce(estimate=seconds)
    log.info("time       about %s (%s)", in_words(seconds), how)
