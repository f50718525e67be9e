"""Compares what the methods cost: parameters, operations, memory and speed, at one size and with one batch."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator

import torch

from bdlf.benchmarking.measure import Measurement, measure
from bdlf.benchmarking.step import Step
from bdlf.config import BenchmarkConfig
from bdlf.methods import METHODS
from bdlf.networks.cost import gflops_per_image


def methods_suite(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """Measures a training step and inference of every method, one method after the other.

    Every view of every method gets random images, also a view that shows silhouettes. Rates count the images that the
    sampler draws, however many views a method has of each. Each note gives the time as a multiple of the first method's
    time. The step has the objective, clipping, the optimiser, averaging and checks, but no input. Inference embeds
    visible images once, without their mirror images.
    """
    first: dict[str, float] = {}
    for name in METHODS:
        for one in _of_method(name, config, device):
            kind = one.what.removeprefix(f"{name}, ")
            times = one.milliseconds / first.setdefault(kind, one.milliseconds)
            yield dataclasses.replace(one, note=f"{one.note}, {times:.2f} x the time of {METHODS[0]}")


def _of_method(name: str, config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    _free(device)
    step = Step(config, device, method=name)
    network = step.experiment.trained.network
    teacher = step.experiment.objective.teacher
    costs = gflops_per_image(network, config.height, config.width, teacher=teacher)
    parameters = step.experiment.parameters
    images = step.batch.images[: config.batch]

    @torch.inference_mode()
    def embed() -> None:
        network.embed(images, "vis")

    work = (("training step", step.parts()[0]), ("inference", embed))
    for (kind, call), gflops in zip(work, costs, strict=True):
        if call is embed:
            network.eval()
        found = measure("methods", f"{name}, {kind}", call, repeats=config.repeats, device=device, items=config.batch)
        note = f"{parameters / 1e6:.1f} M parameters, {gflops:.2f} GFLOP per image"
        gib = None if call is embed else found.gib  # what the step has allocated is still there
        yield dataclasses.replace(found, gib=gib, gflops=gflops * config.batch, parameters=parameters, note=note)


def _free(device: torch.device) -> None:
    """Give the memory of the method before back to the system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
