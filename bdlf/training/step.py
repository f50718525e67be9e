"""One training step: embed, sum the terms, differentiate, move the weights, average. The host does not wait in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from bdlf.objective import Objective, correlations
from bdlf.training.ema import Averaged
from bdlf.training.nonfinite import Buffers, first_gradient, first_layer

GRADIENT = "the gradient's norm"


@dataclass(frozen=True)
class Seen:
    """What became of the steps since the host last looked."""

    taken: int
    """Steps that moved the weights, from the first on."""
    wrong: str | None
    """What was not finite in the step after these; it and all later ones changed nothing. None: all were taken."""
    sums: dict[str, float]
    """Over the steps taken since `begin`, of what is logged."""


class Stepper:
    """Training steps whose outcome stays on the device until `look`.

    A step whose loss or gradient is NaN or infinite changes nothing: no weight, momentum, average or BatchNorm
    statistic. Nor does any step after it until the host has looked, so that what it finds is what it would have found
    right after that step. `optimizer` is a fused one, which can be told on the device to stand still.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        averaged: Averaged | None,
        objective: Objective,
        clip: float | None,
    ) -> None:
        self._fabric, self._model, self._network, self._averaged = fabric, model, network, averaged
        self._optimizer, self._objective, self._clip = optimizer, objective, clip
        self._parameters = [one for one in network.parameters() if one.requires_grad]
        self._buffers = Buffers(network)
        for group in optimizer.param_groups:  # SGD's first step makes momenta without a value, and may be refused
            for one in group["params"] if group.get("momentum") else ():
                optimizer.state[one].setdefault("momentum_buffer", torch.zeros_like(one))
        device = self._parameters[0].device
        self._good = torch.ones((), dtype=torch.bool, device=device)
        self._taken = torch.zeros((), dtype=torch.int64, device=device)
        self._wrong = torch.zeros(len(objective.terms) + 2, dtype=torch.bool, device=device)
        self._checked = [*objective.terms, "total", GRADIENT]
        self._begun: Mapping[str, float] = {}
        self._sums: Tensor | None = None
        self._logged: list[str] = []
        self._launched = 0

    def begin(self, sums: Mapping[str, float]) -> None:
        """Sum what is logged from here on, starting at `sums`."""
        self._begun, self._sums = sums, None

    def step(self, images: Tensor, labels: Tensor, progress: float) -> None:
        """One step on a batch, all of it on the device, at `progress`, the fraction of training done."""
        embeddings = self._model(images, labels)
        losses = self._objective(embeddings, labels, progress)
        self._optimizer.zero_grad(set_to_none=True)
        self._fabric.backward(losses.total)
        norm = torch.nn.utils.get_total_norm([one.grad for one in self._parameters if one.grad is not None])

        total = losses.total.detach()
        wrong = ~torch.stack([*losses.values.values(), total, norm]).isfinite()  # in the order of `_checked`
        self._wrong.logical_or_(wrong & self._good)
        self._good.logical_and_(~wrong.any())

        self._optimizer.found_inf = (~self._good).float()  # type: ignore[attr-defined]
        if self._clip is not None:  # to the norm `clip`: what the gradient is divided by
            self._optimizer.grad_scale = ((norm + 1e-6) / self._clip).clamp(min=1)  # type: ignore[attr-defined]
        self._optimizer.step()
        self._buffers.settle(self._good)
        if self._averaged is not None:
            self._averaged.update(self._network, self._good)

        logged = {"total": total, **losses.values, "gradient_norm": norm, **correlations(embeddings, labels)}
        values = torch.stack([value.double() for value in logged.values()])
        if self._sums is None:
            self._logged = list(logged)
            self._sums = values.new_tensor([self._begun.get(name, 0.0) for name in logged])
        self._sums = torch.where(self._good, self._sums + values, self._sums)
        self._taken += self._good
        self._launched += 1

    def look(self) -> Seen:
        """Wait for the device; from here on steps are taken again."""
        taken, good = int(self._taken), bool(self._good)
        wrong = None
        if not good:
            wrong = next(name for name, one in zip(self._checked, self._wrong.tolist(), strict=True) if one)
            if self._averaged is not None:
                self._averaged.n_averaged -= self._launched - taken
        sums = self._begun if self._sums is None else dict(zip(self._logged, self._sums.tolist(), strict=True))
        self._good.fill_(True)
        self._taken.zero_()
        self._wrong.zero_()
        self._launched = 0
        return Seen(taken, wrong, dict(sums))

    def diagnose(self, wrong: str, images: Tensor, labels: Tensor, progress: float) -> str:
        """Where in the step that `look` called `wrong` that began. Repeats it as far as its gradient; moves nothing."""
        with torch.compiler.set_stance("force_eager"):  # a compiled network has no layers
            if wrong != GRADIENT:
                layer = first_layer(self._network, lambda: self._model(images, labels))
                where = f"first in layer {layer}" if layer else "every layer's output is finite"
            else:
                self._optimizer.zero_grad(set_to_none=True)
                self._fabric.backward(self._objective(self._model(images, labels), labels, progress).total)
                gradient = first_gradient(self._network)
                where = f"nearest to the loss that of {gradient}" if gradient else "finite when the step was repeated"
                self._optimizer.zero_grad(set_to_none=True)
        self._buffers.settle(torch.zeros_like(self._good))
        return where
