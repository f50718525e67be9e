"""One training step: embed a batch, sum the terms, compute the gradient, move the weights, and average them.

The host never waits for the device within a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from bdlf.data.batches import Batch
from bdlf.networks.embeddings import Embeddings
from bdlf.networks.streams import seeded
from bdlf.objective import Objective, correlations
from bdlf.training.ema import Averaged
from bdlf.training.nonfinite import Buffers, first_gradient, first_layer

GRADIENT = "the gradient's norm"


@dataclass(frozen=True)
class Learner:
    """What training changes, and the objects that change it."""

    fabric: Fabric
    network: nn.Module
    """A `bdlf.networks.network.Network`."""
    model: nn.Module
    """`network` as Fabric wrapped it."""
    optimizer: torch.optim.Optimizer
    """A fused optimiser. It changes nothing in a step for which the device sets its `found_inf`."""
    objective: Objective
    averaged: Averaged | None
    """The average of the weights of `network`; None: no average is kept."""
    clip: float | None
    """The norm to which a gradient is clipped; None: gradients are not clipped."""


@dataclass(frozen=True)
class Seen:
    """What became of the steps since the host last looked."""

    taken: int
    """The number of these steps that moved the weights. They are the first ones."""
    wrong: str | None
    """The first quantity that was not finite in the step after the steps taken; None if all steps were taken.

    That step and all later ones left everything unchanged.
    """
    sums: dict[str, float]
    """The sum of every logged quantity over the steps taken since `begin`."""


class Stepper:
    """Takes training steps. Their outcome stays on the device until the host calls `look()`.

    A step whose loss or gradient is NaN or infinite changes nothing: no weight, momentum, average or BatchNorm
    statistic. After such a step, all steps launched later change nothing either, until `look()` reports it. So the
    weights are then those from just before the bad step.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._parameters = [one for one in learner.network.parameters() if one.requires_grad]
        self._buffers = Buffers(learner.network)
        teacher = learner.averaged if learner.objective.teacher else None
        self._teacher_buffers = None if teacher is None else Buffers(teacher.module)
        _give_momenta_a_value(learner.optimizer)
        device = self._parameters[0].device
        self._good = torch.ones((), dtype=torch.bool, device=device)
        self._taken = torch.zeros((), dtype=torch.int64, device=device)
        self._wrong = torch.zeros(len(learner.objective.terms) + 2, dtype=torch.bool, device=device)
        self._checked = [*learner.objective.terms, "total", GRADIENT]
        self._begun: Mapping[str, float] = {}
        self._sums: Tensor | None = None
        self._logged: list[str] = []
        self._launched = 0

    def begin(self, sums: Mapping[str, float]) -> None:
        """Start a new sum of every logged quantity. It starts at the values in `sums`."""
        self._begun, self._sums = sums, None

    def step(self, batch: Batch, progress: float) -> None:
        """Take one step on a batch on the device. `progress` is the fraction of training that is done, in 0..1."""
        embeddings = self._embed(batch)
        losses = self._learner.objective(embeddings, batch.labels, progress)
        self._learner.optimizer.zero_grad(set_to_none=True)
        self._learner.fabric.backward(losses.total)
        norm = torch.nn.utils.get_total_norm([one.grad for one in self._parameters if one.grad is not None])

        total = losses.total.detach()
        wrong = ~torch.stack([*losses.values.values(), total, norm]).isfinite()  # in the order of `_checked`
        self._wrong.logical_or_(wrong & self._good)
        self._good.logical_and_(~wrong.any())

        self._learner.optimizer.found_inf = (~self._good).float()  # type: ignore[attr-defined]
        if self._learner.clip is not None:  # the optimiser divides the gradient by its `grad_scale`
            self._learner.optimizer.grad_scale = ((norm + 1e-6) / self._learner.clip).clamp(min=1)  # type: ignore[attr-defined]
        self._learner.optimizer.step()
        self._buffers.settle(self._good)
        if self._learner.averaged is not None:
            self._learner.averaged.update(self._learner.network, self._good)

        logged = {"total": total, **losses.values, "gradient_norm": norm, **correlations(embeddings, batch.labels)}
        values = torch.stack([value.double() for value in logged.values()])
        if self._sums is None:
            self._logged = list(logged)
            self._sums = values.new_tensor([self._begun.get(name, 0.0) for name in logged])
        self._sums = torch.where(self._good, self._sums + values, self._sums)
        self._taken += self._good
        self._launched += 1

    def _embed(self, batch: Batch) -> Embeddings:
        """What the network makes of a batch, and the teacher if a term reads it. The batch seeds what they draw."""
        device = batch.images.device
        with seeded(batch.seed, device):
            embeddings: Embeddings = self._learner.model(batch.images, batch.labels)
        if self._learner.objective.teacher:
            with seeded(batch.seed, device):
                embeddings.teacher = self._teach(batch)
        return embeddings

    @torch.no_grad()
    def _teach(self, batch: Batch) -> Embeddings:
        """What the average of the weights makes of a batch in training mode. Its BatchNorm statistics do not move."""
        averaged = self._learner.averaged
        assert averaged is not None and self._teacher_buffers is not None  # `bdlf.assembly` refuses to build without
        self._teacher_buffers.settle(torch.ones_like(self._good))  # they have moved since the last step
        with self._learner.fabric.autocast():
            taught: Embeddings = averaged.module.train()(batch.images, batch.labels)
        self._teacher_buffers.settle(torch.zeros_like(self._good))
        return taught

    def look(self) -> Seen:
        """Wait for the device, and report what became of the steps. Later steps change the weights again."""
        taken, good = int(self._taken), bool(self._good)
        wrong = None
        if not good:
            wrong = next(name for name, one in zip(self._checked, self._wrong.tolist(), strict=True) if one)
            if self._learner.averaged is not None:
                self._learner.averaged.n_averaged -= self._launched - taken
        sums = self._begun if self._sums is None else dict(zip(self._logged, self._sums.tolist(), strict=True))
        self._good.fill_(True)
        self._taken.zero_()
        self._wrong.zero_()
        self._launched = 0
        return Seen(taken, wrong, dict(sums))

    def diagnose(self, wrong: str, batch: Batch, progress: float) -> str:
        """Say in which layer, or in which gradient, the quantity `wrong` of a bad step became NaN or infinite.

        `look` has reported `wrong`. The step is repeated up to its gradient, and nothing is changed.
        """
        optimizer = self._learner.optimizer
        with torch.compiler.set_stance("force_eager"):  # because a compiled network does not run layer by layer
            if wrong != GRADIENT:
                layer = first_layer(self._learner.network, lambda: self._embed(batch))
                where = f"first in layer {layer}" if layer else "every layer's output is finite"
            else:
                optimizer.zero_grad(set_to_none=True)
                losses = self._learner.objective(self._embed(batch), batch.labels, progress)
                self._learner.fabric.backward(losses.total)
                gradient = first_gradient(self._learner.network)
                where = f"nearest to the loss that of {gradient}" if gradient else "finite when the step was repeated"
                optimizer.zero_grad(set_to_none=True)
        self._buffers.settle(torch.zeros_like(self._good))
        return where


def _give_momenta_a_value(optimizer: torch.optim.Optimizer) -> None:
    """Set all momenta to 0 before the first step.

    SGD would allocate them in its first step without a value, and if that step changes nothing they would get none.
    """
    for group in optimizer.param_groups:
        for one in group["params"] if group.get("momentum") else ():
            optimizer.state[one].setdefault("momentum_buffer", torch.zeros_like(one))
