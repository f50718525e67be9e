"""The learning rate of each epoch."""

from __future__ import annotations

from collections.abc import Sequence

from bdlf.system.errors import InputError


def rate_factor(epoch: int, *, warmup_epochs: int, milestones: Sequence[int]) -> float:
    """The learning rate in `epoch` (from 0), as a multiple of the full rate [paper, 4.2].

    Over the first `warmup_epochs` epochs it rises linearly from 1 / warmup_epochs to 1. From each of the `milestones`
    on, which are epochs, it is divided by 10. A milestone after the end of the run has no effect.
    """
    if epoch < warmup_epochs:
        return (epoch + 1) / warmup_epochs
    return 0.1 ** sum(epoch >= milestone for milestone in milestones)


def check_schedule(*, epochs: int, warmup_epochs: int, milestones: Sequence[int], steps_per_epoch: int | None) -> None:
    """Raise InputError, naming the key, for a schedule that cannot be run."""
    if epochs < 1:
        raise InputError(f"schedule.epochs={epochs}: at least 1 is needed")
    if warmup_epochs < 0:
        raise InputError(f"schedule.warmup_epochs={warmup_epochs}: 0 or more is needed")
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise InputError(
            f"schedule.steps_per_epoch={steps_per_epoch}: at least 1 is needed, or null for the data's own"
        )
    if list(milestones) != sorted(set(milestones)) or any(milestone < 1 for milestone in milestones):
        raise InputError(f"schedule.milestones={list(milestones)}: rising epochs from 1 on are needed")
