"""`dry_run=true`: says what would run and how long it would take. It writes nothing and reads no image."""

from __future__ import annotations

import logging

import torch

from bdlf.active import active_weights, flat
from bdlf.commandline.jobs import announce, in_words
from bdlf.experiment import Experiment
from bdlf.networks.cost import gflops_per_image
from bdlf.running.job import Job
from bdlf.runs.speed import seconds_of
from bdlf.system.device import accelerator, device_name

log = logging.getLogger("bdlf")


def describe(job: Job, experiment: Experiment) -> None:
    """Show what the run of a job would do, and announce to the sweep how many seconds it would take."""
    config, folder, sampler = job.config, job.folder, experiment.sampler
    splits = experiment.table["split"].value_counts()
    log.info("dry run: %s in %s", "goes on" if job.resumes() else "starts", folder.path)
    log.info("images     %s", ", ".join(f"{split} {count}" for split, count in splits.items()))
    log.info(
        "batches    %d epochs x %d steps of %d images",
        *(config.schedule.epochs, sampler.steps_per_epoch, sampler.batch_size),
    )
    log.info(
        "terms      %s",
        ", ".join(f"{name} x {weight:g}" for name, weight in active_weights(flat(config)).items()),
    )
    log.info("model      %d identities, %.1f M parameters", len(sampler.pids), experiment.parameters / 1e6)
    log.info("scored     %s", "; ".join(setting.name for setting in experiment.settings["test"]))
    kind = accelerator(config.devices)
    log.info("device     %s, %d threads, %s", kind, torch.get_num_threads(), config.precision)
    device = torch.device(kind)
    network = experiment.trained.network.to(device)
    size, teacher = (config.image.height, config.image.width), experiment.objective.teacher
    gflops = experiment.trained_images * gflops_per_image(network, *size, teacher=teacher)[0]
    seconds, how = seconds_of(gflops, folder.path.parents[1], device, device_name(device))
    announce(estimate=seconds)
    log.info("time       about %s (%s)", in_words(seconds), how)
