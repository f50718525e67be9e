"""The training loop: epochs of steps, with their learning rates and their records, and steps that are not finite."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from tqdm import tqdm

from bdlf.data.batches import Batches
from bdlf.system.processes import Starvation
from bdlf.training.nonfinite import IN_A_ROW, NonFiniteError
from bdlf.training.schedule import rate_factor
from bdlf.training.step import Learner, Stepper

log = logging.getLogger("bdlf")


@dataclass(frozen=True)
class Recipe:
    """How long training goes on, at which learning rates, and what becomes of a step that is not finite."""

    epochs: int
    lr: float
    """The full learning rate of a group whose `lr_scale` is 1."""
    warmup_epochs: int
    """As in `rate_factor`."""
    milestones: Sequence[int]
    """As in `rate_factor`."""
    on_nonfinite: str
    """What becomes of a step whose loss or gradient is NaN or infinite: stop | skip."""


@dataclass(frozen=True)
class Progress:
    """How far training has come.

    With this, the weights, their average and the momenta, training goes on bit for bit.
    """

    epoch: int = 0
    """The number of epochs that are done."""
    step: int = 0
    """The number of steps of the next epoch that are done."""
    sums: dict[str, float] = field(default_factory=dict)
    """The sum of every logged quantity over the `step` steps of the next epoch."""
    seconds: float = 0.0
    """The time that those steps took."""
    skipped: int = 0
    """The number of those steps that were skipped."""
    in_a_row: int = 0
    """The number of steps in a row that were skipped just before this point. They may reach into earlier epochs."""
    record: dict[str, float] | None = field(default=None, compare=False)
    """The record of the epoch that has just ended: the mean of every term, the learning rate and the throughput.

    None in the middle of an epoch.
    """

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Progress:
        """The progress that `state()` put into a checkpoint."""
        return cls(**{one.name: state[one.name] for one in fields(cls) if one.name != "record"})

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the progress; see `of`."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "record"}


def fit(
    learner: Learner,
    batches: Batches,
    recipe: Recipe,
    *,
    start: Progress | None = None,
    pause: Callable[[], bool] = lambda: False,
    look_every: int | None = None,
) -> Iterator[Progress]:
    """Train from `start` on. Yield the progress after each epoch, and after each step for which `pause()` is true.

    All randomness derives from (seed, epoch, step). So training goes on bit for bit if the weights, their average, the
    momenta and the progress are saved. A step that is not finite changes none of them.

    The host waits for the device before it yields, and after every `look_every` steps (None: 50 on a GPU, 1 on a CPU).
    This number changes no result, because the steps after one that was not finite are taken again.

    Raises:
        NonFiniteError: a step was not finite, and `recipe` does not allow to skip it.
    """
    now = start or Progress()
    stepper = Stepper(learner)
    starvation = Starvation(torch.get_num_threads())
    at_once = look_every or (1 if learner.fabric.device.type == "cpu" else 50)
    steps = batches.sampler.steps_per_epoch
    total = recipe.epochs * steps
    with tqdm(total=total, initial=now.epoch * steps + now.step, unit="step", disable=None, leave=False) as bar:
        while now.epoch < recipe.epochs:
            rate = recipe.lr * _set_rates(learner, recipe, now.epoch)
            stepper.begin(now.sums)
            clock = _Clock(now.seconds)
            state = now
            while state.step < steps:
                state, pausing = _advance(learner, stepper, batches, recipe, state, at_once, pause)
                waits = ", waits for a processor" if starvation.look() else ""
                bar.set_postfix_str(f"epoch {now.epoch + 1}/{recipe.epochs}{waits}", refresh=False)
                bar.update(now.epoch * steps + state.step - bar.n)
                if pausing:
                    seconds = clock.seconds()
                    yield replace(state, seconds=seconds)
                    clock = _Clock(seconds)
            seconds = clock.seconds()
            record = {
                "epoch": now.epoch,
                "lr": rate,
                **_means(state, steps),
                "skipped_steps": state.skipped,
                "images_per_second": steps * batches.sampler.batch_size / seconds,
                "seconds": seconds,
            }
            now = Progress(now.epoch + 1, in_a_row=state.in_a_row, record=record)
            yield now


class _Clock:
    """Measures time. It starts at `before` seconds."""

    def __init__(self, before: float) -> None:
        self._started = time.perf_counter() - before

    def seconds(self) -> float:
        """The time so far, in seconds."""
        return time.perf_counter() - self._started


def _set_rates(learner: Learner, recipe: Recipe, epoch: int) -> float:
    """Set the learning rate of every parameter group for `epoch`, and return it as a multiple of the full rate."""
    factor = rate_factor(epoch, warmup_epochs=recipe.warmup_epochs, milestones=recipe.milestones)
    for group in learner.optimizer.param_groups:
        group["lr"] = recipe.lr * group["lr_scale"] * factor
    return factor


def _advance(
    learner: Learner,
    stepper: Stepper,
    batches: Batches,
    recipe: Recipe,
    now: Progress,
    at_once: int,
    pause: Callable[[], bool],
) -> tuple[Progress, bool]:
    """Launch up to `at_once` steps, wait for them, and skip or report a step that was not finite.

    Just after a skipped step, only one step is launched. Returns the progress, and whether `pause()` was true.
    """
    steps = batches.sampler.steps_per_epoch
    total = recipe.epochs * steps
    learner.model.train()
    pausing = False
    ahead = range(now.step, min(steps, now.step + (1 if now.in_a_row else at_once)))
    for number, batch in zip(ahead, batches.of(now.epoch, ahead), strict=True):
        stepper.step(batch, (now.epoch * steps + number) / total)
        if number + 1 < steps and pause():
            pausing = True
            break
    seen = stepper.look()
    now = replace(
        now, step=now.step + seen.taken, sums=seen.sums, in_a_row=0 if seen.taken else now.in_a_row, record=None
    )
    if seen.wrong is not None:
        again = batches.again(now.epoch, now.step)
        where = stepper.diagnose(seen.wrong, again, (now.epoch * steps + now.step) / total)
        identities = ", ".join(map(str, batches.identities(now.epoch, now.step)))
        place = f"epoch {now.epoch}, step {now.step} (identities {identities})"
        now = replace(now, step=now.step + 1, skipped=now.skipped + 1, in_a_row=now.in_a_row + 1)
        _skip_or_stop(recipe, f"{seen.wrong} is not finite at {place}, {where}", now.in_a_row)
    return now, pausing


def _means(progress: Progress, steps: int) -> dict[str, float]:
    """The mean of every logged quantity over the steps of an epoch that were not skipped.

    It is empty if all steps were skipped.
    """
    taken = steps - progress.skipped
    return {name: value / taken for name, value in progress.sums.items()} if taken else {}


def _skip_or_stop(recipe: Recipe, what: str, in_a_row: int) -> None:
    if recipe.on_nonfinite != "skip" or in_a_row >= IN_A_ROW:
        many = f"; {in_a_row} steps in a row were skipped" if in_a_row >= IN_A_ROW else ""
        remedy = "A lower optimizer.lr, optimizer.clip=10 or equations=stable may help"
        remedy += "" if recipe.on_nonfinite == "skip" else ", on_nonfinite=skip leaves such steps out"
        raise NonFiniteError(f"{what}{many}; the last checkpoint is kept. {remedy}")
    log.warning("%s: step skipped", what)
