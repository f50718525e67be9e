"""The training loop: sample, augment, embed, sum the terms, step, average."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from bdlf.data.augment import Augmentation
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.objective import Objective, correlations, first_nonfinite
from bdlf.training.nonfinite import IN_A_ROW, Buffers, NonFiniteError, first_gradient, first_layer
from bdlf.training.schedule import rate_factor

log = logging.getLogger("bdlf")


@dataclass(frozen=True)
class Recipe:
    """What the loop needs to know beside the objects it drives."""

    epochs: int
    lr: float
    warmup_epochs: int
    milestones: Sequence[int]
    clip: float | None
    seed: int
    on_nonfinite: str = "stop"
    """Of a step whose loss or gradient is NaN or infinite: stop | skip."""


@dataclass(frozen=True)
class Progress:
    """How far training has come: with weights, averages and momenta, all that it takes to go on bit for bit."""

    epoch: int = 0
    """Epochs that are done."""
    step: int = 0
    """Steps of the next epoch that are done."""
    sums: dict[str, float] = field(default_factory=dict)
    """Over these steps, of what a record holds the mean of."""
    seconds: float = 0.0
    """That these steps took."""
    skipped: int = 0
    """How many of these steps were skipped."""
    in_a_row: int = 0
    """How many were skipped just before, perhaps in earlier epochs."""
    record: dict[str, float] | None = field(default=None, compare=False)
    """Of the epoch that has just ended: the mean of every term, the rate, the throughput."""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Progress:
        """What `state()` put into a checkpoint."""
        return cls(**{one.name: state[one.name] for one in fields(cls) if one.name != "record"})

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "record"}


def fit(
    fabric: Fabric,
    model: nn.Module,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedModel | None,
    objective: Objective,
    sampler: IdentitySampler,
    augmentation: Augmentation,
    store: Images,
    rows: np.ndarray,
    recipe: Recipe,
    *,
    start: Progress | None = None,
    pause: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Train on from `start`; yield after each epoch, with its record, and after each step for which `pause()` is true.

    `model` is `network` as Fabric wrapped it. `rows[i]` is the row of `store` of the sampler's image i. All randomness
    derives from (seed, epoch, step), so that nothing but weights, averages, momenta and the progress has to be saved
    for training to go on bit for bit. A step that is not finite changes none of them; raises NonFiniteError where it is
    not to be skipped.
    """
    labels_of = torch.from_numpy(sampler.labels)
    steps = sampler.steps_per_epoch
    total = recipe.epochs * steps
    stepper = Stepper(fabric, model, network, optimizer, averaged, objective, recipe.clip, Buffers(network))
    now = start or Progress()
    done = now.epoch * steps + now.step
    pixels: Tensor | None = None  # of the step before, whose memory the next one takes
    with tqdm(total=total, initial=done, unit="step", disable=None, leave=False) as bar:
        while now.epoch < recipe.epochs:
            model.train()
            epoch, skipped, in_a_row = now.epoch, now.skipped, now.in_a_row
            factor = rate_factor(epoch, warmup_epochs=recipe.warmup_epochs, milestones=recipe.milestones)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * group["lr_scale"] * factor
            sums: dict[str, Tensor | float] = dict(now.sums)
            batches = sampler.epoch(epoch)
            started = time.perf_counter() - now.seconds
            coming = store.batches(rows[one.reshape(-1)] for one in batches[now.step :])

            for step in range(now.step, steps):
                batch = batches[step].reshape(-1)  # n visible, then n infrared
                images = next(coming)
                labels = labels_of[batch].to(fabric.device)
                pixels = augmentation(images, len(batch) // 2, _generator(recipe.seed, epoch, step), out=pixels)
                try:
                    measured = stepper.step(pixels, labels, (epoch * steps + step) / total)
                    in_a_row = 0
                except _StepError as error:
                    skipped, in_a_row = skipped + 1, in_a_row + 1
                    place = _place(epoch, step, sampler, batch)
                    _skip_or_stop(recipe, f"{error.what} is not finite at {place}, {error.where}", in_a_row)
                    measured = {}
                for name, value in measured.items():
                    sums[name] = sums.get(name, 0.0) + value
                bar.update()
                bar.set_postfix_str(f"epoch {epoch + 1}/{recipe.epochs}", refresh=False)
                if step + 1 < steps and pause():
                    seconds = time.perf_counter() - started
                    so_far = {name: float(value) for name, value in sums.items()}
                    yield Progress(epoch, step + 1, so_far, seconds, skipped, in_a_row)
                    model.train()
                    started = time.perf_counter() - seconds

            seconds = time.perf_counter() - started
            record = {
                "epoch": epoch,
                "lr": recipe.lr * factor,
                **{name: float(value) / (steps - skipped) for name, value in sums.items()},
                "skipped_steps": skipped,
                "images_per_second": steps * sampler.batch_size / seconds,
                "seconds": seconds,
            }
            now = Progress(epoch + 1, in_a_row=in_a_row, record=record)
            yield now


class _StepError(ArithmeticError):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(what, where)
        self.what, self.where = what, where


@dataclass(frozen=True)
class Stepper:
    """One training step of what it holds."""

    fabric: Fabric
    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: AveragedModel | None
    objective: Objective
    clip: float | None
    buffers: Buffers

    def step(self, images: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        """One step, and what is to be logged of it. Where it raises `_StepError`, nothing has changed."""
        self.buffers.keep()
        embeddings = self.model(images, labels)
        losses = self.objective(embeddings, labels, progress)
        measured = {"total": losses.total.detach(), **losses.values}
        if wrong := first_nonfinite({**losses.values, "total": losses.total}):
            where = first_layer(self.network, lambda: self.model(images, labels))
            self.buffers.restore()
            raise _StepError(wrong, f"first in layer {where}" if where else "every layer's output is finite")
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(losses.total)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if wrong := first_nonfinite({"the gradient's norm": norm}):
            self.buffers.restore()
            raise _StepError(wrong, f"nearest to the loss that of {first_gradient(self.network)}")
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip, norm)
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        return {**measured, "gradient_norm": norm, **correlations(embeddings, labels)}


def _skip_or_stop(recipe: Recipe, what: str, in_a_row: int) -> None:
    if recipe.on_nonfinite != "skip" or in_a_row >= IN_A_ROW:
        many = f"; {in_a_row} steps in a row were skipped" if in_a_row >= IN_A_ROW else ""
        remedy = "A lower optimizer.lr, optimizer.clip=10 or equations=stable may help"
        remedy += "" if recipe.on_nonfinite == "skip" else ", on_nonfinite=skip leaves such steps out"
        raise NonFiniteError(f"{what}{many}; the last checkpoint is kept. {remedy}")
    log.warning("%s: step skipped", what)


def _place(epoch: int, step: int, sampler: IdentitySampler, batch: np.ndarray) -> str:
    identities = ", ".join(str(pid) for pid in np.unique(sampler.pids[sampler.labels[batch]]))
    return f"epoch {epoch}, step {step} (identities {identities})"


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """Random numbers of one step's augmentation."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
