"""The averaged model that is reported (Mean Teacher, as MMT uses it [lineage])."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bdlf.errors import InputError

Tensors = tuple[Tensor, ...] | list[Tensor]


class Averaged(AveragedModel):
    """A copy of `model` that `update` moves towards it by 1 - min(1 - 1 / (t + 1), decay), t from 0.

    The warm-up makes it the plain mean of all weights so far until 1 / (t + 1) falls below 1 - decay. BatchNorm's
    running statistics are averaged too, its integer counters copied [ours]. t is `n_averaged`, on the host.

    Raises:
        InputError: a decay outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"ema.decay={decay}: a number in [0, 1) is needed")
        super().__init__(model, multi_avg_fn=self._move, use_buffers=True)
        self._decay = decay
        self._moves: Tensor | None = None

    def update(self, model: nn.Module, moves: Tensor) -> None:
        """One step of the average; none of it moves where `moves`, a boolean on the model's device, is False.

        t counts on all the same: a device is not waited for.
        """
        self._moves = moves
        self.update_parameters(model)

    @torch.no_grad()
    def _move(self, averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:  # all of one dtype
        assert self._moves is not None  # `update` is how this is called
        if averaged[0].is_floating_point():
            share = max(1 / (int(self.n_averaged) + 1), 1 - self._decay)
            weight = self._moves.to(averaged[0]) * share
            torch._foreach_lerp_(averaged, current, [weight] * len(averaged))
        else:
            torch._foreach_copy_(averaged, current)
