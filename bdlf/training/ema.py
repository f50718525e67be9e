"""The average of the weights, which gives the model that is reported (Mean Teacher, as MMT uses it [lineage])."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bdlf.system.errors import InputError


class Averaged(nn.Module):
    """The average of the weights of `model` over the steps of training, in its own copy `module`.

    Update t (from 0) moves `module` towards the model by the share 1 - min(1 - 1 / (t + 1), decay). So `module` is the
    plain mean of all weights so far until 1 / (t + 1) falls below 1 - decay. The running statistics of BatchNorm are
    averaged too, and its integer counters are copied [ours].

    `n_averaged` is t. It always stays on the host, because reading it on a GPU would make the host wait in each update,
    as it does in PyTorch's `AveragedModel`, from which the names come.

    Raises:
        InputError: a decay outside [0, 1).
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"ema.decay={decay}: a number in [0, 1) is needed")
        super().__init__()
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", torch.tensor(0))
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, moves: Tensor) -> None:
        """Update the average once. Nothing moves if `moves`, a boolean tensor on the model's device, is False.

        t is increased in both cases, because the host does not wait for the value of `moves`.
        """
        share = max(1 / (int(self.n_averaged) + 1), 1 - self._decay)
        pairs = list(zip(_state(self.module), _state(model), strict=True))
        numbers = [(mean, now) for mean, now in pairs if mean.is_floating_point()]
        counters = [(mean, now) for mean, now in pairs if not mean.is_floating_point()]
        weights = [moves.to(numbers[0][0].dtype) * share] * len(numbers)
        torch._foreach_lerp_([mean for mean, _ in numbers], [now for _, now in numbers], weights)
        if counters:
            torch._foreach_copy_([mean for mean, _ in counters], [now for _, now in counters])
        self.n_averaged += 1


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
