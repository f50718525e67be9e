"""Keeps the weights of the epochs that selection rules prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bdlf.runs.folder import RunFolder
from bdlf.system.files import remove_leftovers
from bdlf.training.checkpoint import save_checkpoint
from bdlf.training.loop import Progress


class SelectedWeights:
    """The weights of the epochs that selection rules prefer, each in a file `<rule>-epoch<k>.pt` (k from 0).

    A run may go on from each of the `generations` checkpoints that are kept. It then scores again every epoch after
    that checkpoint, and also the epoch just before it, because the run may have been cut off before it was scored. On
    another machine the new scores may differ from the old ones. So when a run goes on, the weights of all epochs that
    are scored again are removed. And for every checkpoint that is kept, the best of the epochs which would not be
    scored again is kept too.
    """

    def __init__(self, folder: RunFolder, rules: Sequence[str], *, generations: int) -> None:
        self._folder, self._rules, self._generations = folder, list(rules), generations
        self._settled: list[int] = []  # `_settled` of each checkpoint that is known, newest first
        self._knows_all = False

    def go_on(self, progress: Progress) -> None:
        """Remove the weights of the epochs that are scored again. The caller calls this before anything is scored."""
        begins = progress == Progress()
        settled = _settled(progress)
        self._settled, self._knows_all = ([], True) if begins else ([settled], False)
        for rule in self._rules:
            for epoch in self._folder.selected(rule):
                if epoch >= settled:
                    self._remove(rule, epoch)

    def keep(self, rule: str, epoch: int, state: dict[str, Any]) -> None:
        """Write the weights of a new best epoch. Raises StorageError if they cannot be written."""
        save_checkpoint(self._folder.weights_of(rule, epoch), state)
        self._prune()

    def checkpoint_saved(self, progress: Progress) -> None:
        """Remove the weights that no checkpoint needs any more. The caller calls this after each checkpoint."""
        self._settled = [_settled(progress), *self._settled][: self._generations]
        self._prune()

    def finish(self, chosen: Mapping[str, int]) -> None:
        """Keep only the epochs that the result reports. The caller calls this after the result is written."""
        for rule in self._rules:
            for epoch in self._folder.selected(rule):
                if epoch != chosen[rule]:
                    self._remove(rule, epoch)

    def _prune(self) -> None:
        knows_all = self._knows_all or len(self._settled) >= self._generations
        unknown = 0 if knows_all else min(self._settled)  # older checkpoints may need any epoch before it
        for rule in self._rules:
            epochs = sorted(self._folder.selected(rule))
            needed = {*epochs[-1:], *(epoch for epoch in epochs if epoch < unknown)}
            for settled in self._settled:
                needed.update([epoch for epoch in epochs if epoch < settled][-1:])
            for epoch in set(epochs) - needed:
                self._remove(rule, epoch)

    def _remove(self, rule: str, epoch: int) -> None:
        path = self._folder.weights_of(rule, epoch)
        remove_leftovers(path.parent, f"{path.name}*")  # the file and its checksum


def _settled(progress: Progress) -> int:
    """The number of epochs that a run does not score again if it goes on from `progress`."""
    return max(progress.epoch - (progress.step == 0), 0)
