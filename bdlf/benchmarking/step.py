"""Compares the training step of the configured method with that of a plain ResNet-50, and times its safety checks."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from hydra import compose
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bdlf.active import PAPER
from bdlf.benchmarking.measure import Measurement, matrix_product_gflops, measure
from bdlf.config import BenchmarkConfig, Checkpoint, Config
from bdlf.data.augment import Augmentation
from bdlf.data.batches import Batch, Batches
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.experiment import Experiment
from bdlf.methods import build_network
from bdlf.networks.cost import gflops_per_image
from bdlf.system.device import configure_process, fabric_of
from bdlf.training.checkpoint import save_checkpoint
from bdlf.training.loop import Progress, fit
from bdlf.training.nonfinite import Buffers
from bdlf.training.scoring import Trained
from bdlf.training.step import Stepper

_IDENTITIES = 395  # as many as SYSU-MM01 has for training
_STORED = 512  # least number of images that batches are drawn from


def step_suite(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """Measures the plain step, the method's step, the training loop and the safety checks.

    With `config.growth` it also measures, at a quarter of the batch, how the step grows with its options.
    """
    rate = matrix_product_gflops(device, config.precision)
    plain = _measured("plain ResNet-50, last stride 1", _plain(config, device), config, device, rate)
    yield plain
    step = Step(config, device)
    name = f"BDLF, stage {config.stage}, {config.blocks} blocks"
    full = _measured(name, step.parts(), config, device, rate)
    yield dataclasses.replace(full, note=f"{full.milliseconds / plain.milliseconds:.2f} x plain; {full.note}")
    yield _loop(step, full, config, device)
    yield from _safety(step, full, config, device)
    del step
    if not config.growth:
        return
    quarter = max(16, config.batch // 64 * 16)
    grown: list[tuple[str, dict[str, Any], int]] = [
        ("", {}, _IDENTITIES),
        (", 1 block", {"blocks": 1}, _IDENTITIES),
        (", 8 blocks", {"blocks": 8}, _IDENTITIES),
        (", activations recomputed", {"recompute": True}, _IDENTITIES),
        (", 256 x 128", {"height": 256, "width": 128}, _IDENTITIES),
        (", 10 x the identities", {}, 10 * _IDENTITIES),
    ]
    for words, changes, identities in grown:
        smaller = dataclasses.replace(config, batch=quarter, **changes)
        yield _measured(f"batch {quarter}{words}", Step(smaller, device, identities).parts(), smaller, device, rate)


def _measured(
    what: str, work: tuple[Callable[[], object], float], config: BenchmarkConfig, device: torch.device, rate: float
) -> Measurement:
    """Time `work`, a step and its 10^9 operations, and note its share of `rate` (10^9 operations per second)."""
    step, gflops = work
    found = measure("step", what, step, repeats=config.repeats, device=device, items=config.batch)
    share = gflops / (found.milliseconds / 1e3) / rate
    note = f"{gflops / found.milliseconds:.2f} TFLOP/s, {share:.0%} of the matrix product's {rate / 1e3:.2f}"
    return dataclasses.replace(found, gflops=gflops, note=note)


def _batch(config: BenchmarkConfig, device: torch.device, views: int = 2) -> tuple[Tensor, Tensor]:
    """A block of random images for each view, and the labels of all blocks."""
    n = config.batch // 2
    shape = (views * n, 3, config.height, config.width)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(n, device=device).div(4, rounding_mode="floor").repeat(views)
    return images.contiguous(memory_format=torch.channels_last), labels


def _plain(config: BenchmarkConfig, device: torch.device) -> tuple[Callable[[], object], float]:
    """A training step of torchvision's ResNet-50 with cross-entropy and SGD, and its 10^9 operations.

    The last stage has stride 1, as is usual in re-identification.
    """
    network = torchvision.models.resnet50(num_classes=_IDENTITIES)
    for layer in (network.layer4[0].conv2, network.layer4[0].downsample[0]):
        layer.stride = (1, 1)
    full = training(config)
    configure_process(devices=full.devices, threads=full.threads, deterministic=full.deterministic)
    fabric = fabric_of(full.devices, full.precision)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images, labels = _batch(config, device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images[:2].cpu())
    model, optimizer = fabric.setup(network.to(memory_format=torch.channels_last), optimizer)

    def step() -> None:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()

    return step, 3 * counter.get_total_flops() / 2 / 1e9 * config.batch


class Step:
    """A training step as `bdlf.train` takes it, with gradient clipping, weight averaging and the safety checks."""

    def __init__(
        self, config: BenchmarkConfig, device: torch.device, identities: int = _IDENTITIES, method: str = PAPER
    ) -> None:
        full = training(config, method)
        configure_process(devices=full.devices, threads=full.threads, deterministic=full.deterministic)
        self.experiment = Experiment(full)
        network = build_network(full, identities, self.experiment.objective, weights="none")
        teacher = self.experiment.objective.teacher
        self.gflops = gflops_per_image(network, config.height, config.width, teacher=teacher)[0] * config.batch
        self.experiment.trained = Trained(network, None)
        self.learner = self.experiment.learner(fabric_of(full.devices, full.precision))
        self.stepper = Stepper(self.learner)
        self.size = config.batch
        self.batch = Batch(*_batch(config, device, len(network.views)))

    def parts(self) -> tuple[Callable[[], object], float]:
        """A function that takes one step, and the 10^9 operations of this step."""
        return lambda: self.stepper.step(self.batch, 1.0), self.gflops

    def epochs(self, steps: int, store: Images) -> Iterator[Progress]:
        """Trains epochs of `steps` steps each with the loop of `bdlf.train`, on batches drawn from `store`."""
        pids = np.arange(len(store)) // 8
        modalities = np.tile(["vis", "ir"], len(pids) // 2)
        sampler = IdentitySampler(pids, modalities, identities=self.size // 8, steps=steps)
        augmentation = Augmentation(**dataclasses.asdict(self.experiment.config.augment))
        views = self.experiment.trained.network.views
        batches = Batches(sampler, store, np.arange(len(store)), augmentation, views, seed=0)
        return fit(self.learner, batches, dataclasses.replace(self.experiment.recipe, epochs=1 << 20))


def _loop(step: Step, full: Measurement, config: BenchmarkConfig, device: torch.device) -> Measurement:
    """Time the same steps inside the training loop.

    The note says how much longer they take there, because the loop samples, fetches and augments the batches.
    """
    steps = 50 if device.type == "cuda" else 1
    shape = (8 * max(_STORED // 8, config.batch // 8), config.height, config.width, 3)
    store = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    epochs = step.epochs(steps, Images(store, device))
    what = f"the loop of training, {steps} steps an epoch"
    found = measure(
        "step", what, lambda: next(epochs), repeats=config.repeats, device=device, items=steps * config.batch
    )
    note = f"{found.milliseconds / steps / full.milliseconds:.3f} x the step alone"
    return dataclasses.replace(found, note=note)


def _safety(step: Step, full: Measurement, config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """Time the check for non-finite quantities, as a share of the step `full`, and the writing of a checkpoint."""
    values, buffers = list(torch.rand(16, device=device)), Buffers(step.learner.network)

    def checks() -> None:
        good = torch.stack(values).isfinite().all()
        buffers.settle(good)

    found = measure("step", "its checks for NaN", checks, repeats=10 * config.repeats, device=device)
    yield dataclasses.replace(found, gib=None, note=f"{found.milliseconds / full.milliseconds:.2%} of the step")
    states: dict[str, Any] = {**step.experiment.trained.states, "optimizer": step.learner.optimizer}
    with tempfile.TemporaryDirectory() as folder:

        def save() -> None:
            save_checkpoint(
                Path(folder) / "last.pt", {name: part.state_dict() for name, part in states.items()}, keep=2
            )

        found = measure("step", "a checkpoint", save, repeats=config.repeats, device=device)
        size = (Path(folder) / "last.pt").stat().st_size / 2**20
    minutes = Checkpoint().every_minutes or float("inf")
    note = f"{size:.0f} MiB; at one in {minutes:.0f} minutes {found.milliseconds / 60e3 / minutes:.2%} of the time"
    yield dataclasses.replace(found, gib=None, note=note)


def training(config: BenchmarkConfig, method: str = PAPER) -> Config:
    """The configuration of a method in the paper's recipe on SYSU-MM01, with the sizes of the benchmark.

    Hydra composes it, so it must be initialised, as it is inside a command.
    """
    words = [
        "dataset=sysu",
        f"image.height={config.height}",
        f"image.width={config.width}",
        f"precision={config.precision}",
        f"compile={config.compile}",
        f"devices={config.devices}",
        f"threads={config.threads or 'null'}",
        f"batch.identities={config.batch // 8}",
    ]
    if method == PAPER:
        words += [f"dfe.{key}={getattr(config, key)}" for key in ("stage", "blocks", "recompute")]
    else:
        words.append(f"method={method}")
    full = OmegaConf.to_object(compose("config", words))
    assert isinstance(full, Config)
    return full
