"""Decides when the checkpoint of a run is written, and writes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bdlf.training.checkpoint import save_checkpoint
from bdlf.training.loop import Progress

SHARE = 0.02
"""The share of the time that checkpoints at the ends of epochs may take."""


class Saver:
    """Writes the checkpoint `path`, which holds the states of `parts`, the progress, and the entries of `identity`.

    - `keep` is that of `save_checkpoint`.
    - `every_minutes` and `every_steps`: a checkpoint is due in the middle of an epoch when so much time has passed, or
      so many steps were taken, since the last one. None: never.
    - `clock` gives the time in seconds.
    """

    def __init__(
        self,
        path: Path,
        parts: Mapping[str, Any],
        identity: Mapping[str, Any],
        *,
        keep: int,
        every_minutes: float | None,
        every_steps: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._parts, self._identity, self._keep = path, dict(parts), dict(identity), keep
        self._every_seconds = None if every_minutes is None else 60 * every_minutes
        self._every_steps = every_steps
        self._clock = clock
        self._written, self._took, self._steps = clock(), 0.0, 0

    def due_after_step(self) -> bool:
        """Whether a checkpoint is due after a step. The caller asks after each step, because the calls are counted."""
        self._steps += 1
        minutes = self._every_seconds is not None and self._clock() - self._written >= self._every_seconds
        return minutes or (self._every_steps is not None and self._steps >= self._every_steps)

    def due_after_epoch(self) -> bool:
        """Whether a checkpoint is due after an epoch.

        It is due if the last one took at most `SHARE` of the time that has passed since it was written.
        """
        return self._took <= SHARE * (self._clock() - self._written)

    def save(self, progress: Progress) -> None:
        """Write the checkpoint now. Raises StorageError if it cannot be written."""
        started = self._clock()
        states = {name: part.state_dict() for name, part in self._parts.items()}
        save_checkpoint(self._path, {**states, **self._identity, **progress.state()}, keep=self._keep)
        self._written, self._steps = self._clock(), 0
        self._took = self._written - started
