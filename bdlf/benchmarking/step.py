"""The training step of the configured method against that of a plain ResNet-50, and what its safety costs."""

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

from bdlf import build
from bdlf.benchmarking.measure import Measurement, matrix_product_gflops, measure
from bdlf.config import BenchmarkConfig, Checkpoint, Config
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.networks.cost import gflops_per_image
from bdlf.training.checkpoint import save_checkpoint
from bdlf.training.ema import Averaged
from bdlf.training.loop import Progress, fit
from bdlf.training.nonfinite import Buffers
from bdlf.training.step import Stepper

_IDENTITIES = 395  # of SYSU-MM01's training set
_STORED = 512  # images that batches are drawn from


def step_suite(config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    """The plain step first; growth is measured at a quarter of the batch."""
    rate = matrix_product_gflops(device, config.precision)
    plain = _measured("plain ResNet-50, last stride 1", _plain(config, device), config, device, rate)
    yield plain
    step = _Step(config, device)
    name = f"BDLF, stage {config.stage}, {config.blocks} blocks"
    full = _measured(name, step.parts(), config, device, rate)
    yield Measurement(**vars(full) | {"note": f"{full.milliseconds / plain.milliseconds:.2f} x plain; {full.note}"})
    yield _loop(step, full, config, device)
    yield from _safety(step, full, config, device)
    del step
    if not config.growth:
        return
    quarter = max(16, config.batch // 64 * 16)
    for what, changes in (
        (f"batch {quarter}", {}),
        (f"batch {quarter}, 1 block", {"blocks": 1}),
        (f"batch {quarter}, 8 blocks", {"blocks": 8}),
        (f"batch {quarter}, activations recomputed", {"recompute": True}),
        (f"batch {quarter}, 256 x 128", {"height": 256, "width": 128}),
        (f"batch {quarter}, 10 x the identities", {"identities": 10 * _IDENTITIES}),
    ):
        identities = changes.pop("identities", _IDENTITIES)
        smaller = BenchmarkConfig(**vars(config) | {"batch": quarter} | changes)
        yield _measured(what, _Step(smaller, device, identities).parts(), smaller, device, rate)


def _measured(
    what: str, work: tuple[Callable[[], object], float], config: BenchmarkConfig, device: torch.device, rate: float
) -> Measurement:
    step, gflops = work
    found = measure("step", what, step, repeats=config.repeats, device=device, items=config.batch, gflops=gflops)
    share = gflops / (found.milliseconds / 1e3) / rate
    note = f"{gflops / found.milliseconds:.2f} TFLOP/s, {share:.0%} of the matrix product's {rate / 1e3:.2f}"
    return Measurement(**vars(found) | {"note": note})


def _batch(config: BenchmarkConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    shape = (config.batch, 3, config.height, config.width)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(config.batch // 2, device=device).div(4, rounding_mode="floor").repeat(2)
    return images.contiguous(memory_format=torch.channels_last), labels


def _plain(config: BenchmarkConfig, device: torch.device) -> tuple[Callable[[], object], float]:
    """torchvision's ResNet-50 with the re-ID stride, cross-entropy, SGD."""
    network = torchvision.models.resnet50(num_classes=_IDENTITIES)
    for layer in (network.layer4[0].conv2, network.layer4[0].downsample[0]):
        layer.stride = (1, 1)
    fabric = build.build_fabric(training(config))
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


class _Step:
    """A training step as `bdlf.train` takes it, with gradient clipping, averaging and its checks."""

    def __init__(self, config: BenchmarkConfig, device: torch.device, identities: int = _IDENTITIES) -> None:
        full = self.config = training(config)
        torch.manual_seed(0)
        fabric, objective = self.fabric, self.objective = build.build_fabric(full), build.build_objective(full)
        self.network = build.build_model(full, identities, objective, weights="none")
        self.gflops = gflops_per_image(self.network, config.height, config.width)[0] * config.batch
        model = self.model = build.set_up(full, fabric, self.network)
        self.optimizer = build.build_optimizer(full.optimizer, self.network)
        self.averaged = Averaged(self.network, full.ema.decay)
        self.stepper = Stepper(
            fabric, model, self.network, self.optimizer, self.averaged, objective, full.optimizer.clip
        )
        self.batch = config.batch
        self.images, self.labels = _batch(config, device)

    def parts(self) -> tuple[Callable[[], object], float]:
        """The step, and its 10^9 operations."""
        return lambda: self.stepper.step(self.images, self.labels, 1.0), self.gflops

    def epochs(self, steps: int, store: Images) -> Iterator[Progress]:
        """Of so many steps each, by the loop of `bdlf.train`, on batches of `store`."""
        pids = np.arange(len(store)) // 8
        sampler = IdentitySampler(pids, np.tile(["vis", "ir"], len(pids) // 2), identities=self.batch // 8, steps=steps)
        recipe = dataclasses.replace(build.build_recipe(self.config), epochs=1 << 20)
        return fit(
            self.fabric, self.model, self.network, self.optimizer, self.averaged, self.objective, sampler,
            build.build_augmentation(self.config), store, np.arange(len(store)), recipe,
        )  # fmt: skip


def _loop(step: _Step, full: Measurement, config: BenchmarkConfig, device: torch.device) -> Measurement:
    """The same steps by the training loop: what sampling, fetching and augmenting the batches makes them wait."""
    steps = 50 if device.type == "cuda" else 1
    shape = (8 * max(_STORED // 8, config.batch // 8), config.height, config.width, 3)
    store = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    epochs = step.epochs(steps, Images(store, device))
    what = f"the loop of training, {steps} steps an epoch"
    found = measure(
        "step", what, lambda: next(epochs), repeats=config.repeats, device=device, items=steps * config.batch
    )
    note = f"{found.milliseconds / steps / full.milliseconds:.3f} x the step alone"
    return Measurement(**vars(found) | {"note": note})


def _safety(step: _Step, full: Measurement, config: BenchmarkConfig, device: torch.device) -> Iterator[Measurement]:
    values, buffers = list(torch.rand(16, device=device)), Buffers(step.network)

    def checks() -> None:
        good = torch.stack(values).isfinite().all()
        buffers.settle(good)

    found = measure("step", "its checks for NaN", checks, repeats=10 * config.repeats, device=device)
    yield Measurement(
        **vars(found) | {"gib": None, "note": f"{found.milliseconds / full.milliseconds:.2%} of the step"}
    )
    states: dict[str, Any] = {"model": step.network, "averaged": step.averaged, "optimizer": step.optimizer}
    with tempfile.TemporaryDirectory() as folder:

        def save() -> None:
            save_checkpoint(
                Path(folder) / "last.pt", {name: part.state_dict() for name, part in states.items()}, keep=2
            )

        found = measure("step", "a checkpoint", save, repeats=config.repeats, device=device)
        size = (Path(folder) / "last.pt").stat().st_size / 2**20
    minutes = Checkpoint().every_minutes or float("inf")
    note = f"{size:.0f} MiB; at one in {minutes:.0f} minutes {found.milliseconds / 60e3 / minutes:.2%} of the time"
    yield Measurement(**vars(found) | {"gib": None, "note": note})


def training(config: BenchmarkConfig) -> Config:
    """The paper's recipe with the benchmark's sizes, by Hydra, which a command has started."""
    words = [
        "dataset=sysu",
        f"image.height={config.height}",
        f"image.width={config.width}",
        f"dfe.stage={config.stage}",
        f"dfe.blocks={config.blocks}",
        f"dfe.recompute={config.recompute}",
        f"precision={config.precision}",
        f"compile={config.compile}",
        f"devices={config.devices}",
        f"threads={config.threads or 'null'}",
        f"batch.identities={config.batch // 8}",
    ]
    full = OmegaConf.to_object(compose("config", words))
    assert isinstance(full, Config)
    return full
