"""The averaged model that is reported (Mean Teacher, as MMT uses it [lineage])."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bdlf.errors import InputError

Tensors = tuple[Tensor, ...] | list[Tensor]


def averaged_copy(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` whose `update_parameters(model)` moves it by 1 - min(1 - 1 / (t + 1), decay), t from 0.

    The warm-up makes it the plain mean of all weights so far until 1 / (t + 1) falls below 1 - decay. BatchNorm's
    running statistics are averaged too, its integer counters copied [ours].
    """
    if not 0 <= decay < 1:
        raise InputError(f"ema.decay={decay}: a number in [0, 1) is needed")

    @torch.no_grad()
    def average(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:  # all of one dtype
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, max(1 / (int(updates) + 1), 1 - decay))
        else:
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
