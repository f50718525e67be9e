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
from tqdm import tqdm

from bdlf.data.augment import Augmentation
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.objective import Objective, require_pairs
from bdlf.system.processes import Starvation
from bdlf.training.ema import Averaged
from bdlf.training.nonfinite import IN_A_ROW, NonFiniteError
from bdlf.training.schedule import rate_factor
from bdlf.training.step import Stepper

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
    averaged: Averaged | None,
    objective: Objective,
    sampler: IdentitySampler,
    augmentation: Augmentation,
    store: Images,
    rows: np.ndarray,
    recipe: Recipe,
    *,
    start: Progress | None = None,
    pause: Callable[[], bool] = lambda: False,
    look_every: int | None = None,
) -> Iterator[Progress]:
    """Train on from `start`; yield after each epoch, with its record, and after each step for which `pause()` is true.

    `model` is `network` as Fabric wrapped it. `rows[i]` is the row of `store` of the sampler's image i. All randomness
    derives from (seed, epoch, step), so that nothing but weights, averages, momenta and the progress has to be saved
    for training to go on bit for bit. A step that is not finite changes none of them; raises NonFiniteError where it is
    not to be skipped. The host waits for the device before it yields and every `look_every` steps (None: 50, on a CPU
    1), whatever comes out: where a step was not finite, those after it are taken anew.
    """
    labels_of = torch.from_numpy(sampler.labels)
    steps = sampler.steps_per_epoch
    total = recipe.epochs * steps
    stepper = Stepper(fabric, model, network, optimizer, averaged, objective, recipe.clip)
    at_once = look_every or (1 if fabric.device.type == "cpu" else 50)
    now = start or Progress()
    starvation = Starvation(torch.get_num_threads())
    memory: list[Tensor | None] = [None]  # of the batch before, which the next one takes

    def prepare(images: Tensor, batch: np.ndarray, epoch: int, step: int) -> tuple[Tensor, Tensor, float]:
        """What `Stepper.step` is given; of n visible and then n infrared images."""
        labels = labels_of[batch]
        require_pairs(labels)
        generator = _generator(recipe.seed, epoch, step)
        memory[0] = pixels = augmentation(images, len(batch) // 2, generator, out=memory[0])
        return pixels, labels.to(fabric.device, non_blocking=True), (epoch * steps + step) / total

    with tqdm(total=total, initial=now.epoch * steps + now.step, unit="step", disable=None, leave=False) as bar:
        while now.epoch < recipe.epochs:
            epoch, skipped, in_a_row = now.epoch, now.skipped, now.in_a_row
            factor = rate_factor(epoch, warmup_epochs=recipe.warmup_epochs, milestones=recipe.milestones)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * group["lr_scale"] * factor
            batches = sampler.epoch(epoch).reshape(steps, -1)
            stepper.begin(now.sums)
            started = time.perf_counter() - now.seconds
            current = f"epoch {epoch + 1}/{recipe.epochs}"

            step = now.step
            while step < steps:
                model.train()
                pausing = False
                ahead = range(step, min(steps, step + (1 if in_a_row else at_once)))
                for number, images in zip(ahead, store.batches(rows[batches[ahead]]), strict=True):
                    stepper.step(*prepare(images, batches[number], epoch, number))
                    if number + 1 < steps and pause():
                        pausing = True
                        break
                seen = stepper.look()
                step += seen.taken
                in_a_row = 0 if seen.taken else in_a_row
                if seen.wrong is not None:
                    skipped, in_a_row = skipped + 1, in_a_row + 1
                    again = prepare(store.take(rows[batches[step]]), batches[step], epoch, step)
                    where = stepper.diagnose(seen.wrong, *again)
                    place = _place(epoch, step, sampler, batches[step])
                    _skip_or_stop(recipe, f"{seen.wrong} is not finite at {place}, {where}", in_a_row)
                    step += 1
                waits = ", waits for a processor" if starvation.look() else ""
                bar.set_postfix_str(f"{current}{waits}", refresh=False)
                bar.update(epoch * steps + step - bar.n)
                if pausing:
                    seconds = time.perf_counter() - started
                    yield Progress(epoch, step, seen.sums, seconds, skipped, in_a_row)
                    started = time.perf_counter() - seconds

            seconds = time.perf_counter() - started
            record = {
                "epoch": epoch,
                "lr": recipe.lr * factor,
                **{name: value / (steps - skipped) for name, value in seen.sums.items() if steps > skipped},
                "skipped_steps": skipped,
                "images_per_second": steps * sampler.batch_size / seconds,
                "seconds": seconds,
            }
            now = Progress(epoch + 1, in_a_row=in_a_row, record=record)
            yield now


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
