"""The training loop: sample, augment, embed, sum the terms, step, average."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from bdlf.data.augment import Augmentation
from bdlf.data.sampler import IdentitySampler
from bdlf.objective import Objective, correlations, first_nonfinite
from bdlf.training.schedule import rate_factor


class NonFiniteError(ArithmeticError):
    """A term or the gradient is NaN or infinite; the message names it, the epoch, the step and the identities."""


@dataclass(frozen=True)
class Recipe:
    """What the loop needs to know beside the objects it drives."""

    epochs: int
    lr: float
    warmup_epochs: int
    milestones: Sequence[int]
    clip: float | None
    seed: int


def fit(
    fabric: Fabric,
    model: nn.Module,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedModel | None,
    objective: Objective,
    sampler: IdentitySampler,
    augmentation: Augmentation,
    store: np.ndarray,
    rows: np.ndarray,
    recipe: Recipe,
    *,
    first_epoch: int = 0,
) -> Iterator[dict[str, float]]:
    """Train from `first_epoch` on and yield one record per epoch: the mean of every term, the rate, the throughput.

    `model` is `network` as Fabric wrapped it. `rows[i]` is the row of `store` of the sampler's image i. All randomness
    derives from (seed, epoch, step), so that nothing but weights, averages and momenta has to be saved for training to
    go on bit for bit. Raises NonFiniteError.
    """
    labels_of = torch.from_numpy(sampler.labels)
    steps = sampler.steps_per_epoch
    with tqdm(total=recipe.epochs * steps, initial=first_epoch * steps, unit="step", disable=None, leave=False) as bar:
        for epoch in range(first_epoch, recipe.epochs):
            model.train()
            factor = rate_factor(epoch, warmup_epochs=recipe.warmup_epochs, milestones=recipe.milestones)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * group["lr_scale"] * factor
            sums: dict[str, Tensor | float] = defaultdict(float)
            started = time.perf_counter()
            images_seen = 0

            for step, pair in enumerate(sampler.epoch(epoch)):
                batch = pair.reshape(-1)  # n visible, then n infrared
                images = torch.from_numpy(store[rows[batch]]).to(fabric.device)
                labels = labels_of[batch].to(fabric.device)
                images = augmentation(images, len(batch) // 2, _generator(recipe.seed, epoch, step))

                embeddings = model(images, labels)
                losses = objective(embeddings, labels, (epoch * steps + step) / (recipe.epochs * steps))
                _require_finite(first_nonfinite({**losses.values, "total": losses.total}), epoch, step, sampler, batch)

                optimizer.zero_grad(set_to_none=True)
                fabric.backward(losses.total)
                norm = _gradient_norm(model, recipe.clip)
                _require_finite(first_nonfinite({"the gradient's norm": norm}), epoch, step, sampler, batch)
                optimizer.step()
                if averaged is not None:
                    averaged.update_parameters(network)

                measured: Mapping[str, Tensor] = {"total": losses.total.detach(), **losses.values}
                for name, value in {**measured, "gradient_norm": norm, **correlations(embeddings, labels)}.items():
                    sums[name] = sums[name] + value
                images_seen += len(batch)
                bar.update()
                bar.set_postfix_str(f"epoch {epoch + 1}/{recipe.epochs}", refresh=False)

            seconds = time.perf_counter() - started
            yield {
                "epoch": epoch,
                "lr": recipe.lr * factor,
                **{name: float(value) / steps for name, value in sums.items()},
                "images_per_second": images_seen / seconds,
                "seconds": seconds,
            }


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """Random numbers of one step's augmentation."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _gradient_norm(model: nn.Module, clip: float | None) -> Tensor:
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    return torch.nn.utils.clip_grad_norm_(parameters, clip if clip is not None else float("inf")).detach()


def _require_finite(name: str | None, epoch: int, step: int, sampler: IdentitySampler, batch: np.ndarray) -> None:
    if name is not None:
        identities = ", ".join(str(pid) for pid in np.unique(sampler.pids[sampler.labels[batch]]))
        raise NonFiniteError(
            f"{name} is not finite at epoch {epoch}, step {step} (identities {identities}); "
            "the last checkpoint is kept. A lower optimizer.lr, optimizer.clip=10 or equations=stable may help"
        )
