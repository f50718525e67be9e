"""Which epochs' weights are kept for the rules that select an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bdlf.runs.folder import RunFolder
from bdlf.system.files import remove_leftovers
from bdlf.training.checkpoint import save_checkpoint
from bdlf.training.loop import Progress


class SelectedWeights:
    """The weights of the epochs that selection rules prefer, each in a file `<rule>-epoch<k>.pt` (k from 0).

    A run may go on from any checkpoint that is kept, `generations` of them. It then scores again whatever came after
    that checkpoint, and also the epoch just before it, which may have been left unscored. On another machine the new
    scores may differ from the old ones. So the weights of the epochs that are scored again are removed when a run goes
    on, and for every checkpoint that is kept, the best of the epochs before those is kept as well.
    """

    def __init__(self, folder: RunFolder, rules: Sequence[str], *, generations: int) -> None:
        self._folder, self._rules, self._generations = folder, list(rules), generations
        self._settled: list[int] = []  # of each checkpoint that is known, newest first: see _settled
        self._knows_all = False

    def go_on(self, progress: Progress) -> None:
        """Remove the weights of the epochs that are scored again; to be called once, before anything is scored."""
        begins = progress == Progress()
        settled = _settled(progress)
        self._settled, self._knows_all = ([], True) if begins else ([settled], False)
        for rule in self._rules:
            for epoch in self._folder.selected(rule):
                if epoch >= settled:
                    self._remove(rule, epoch)

    def keep(self, rule: str, epoch: int, state: dict[str, Any]) -> None:
        """Write the weights of a new best epoch. Raises StorageError."""
        save_checkpoint(self._folder.weights_of(rule, epoch), state)
        self._prune()

    def checkpoint_saved(self, progress: Progress) -> None:
        """Remove what no checkpoint needs any more; to be called after each checkpoint."""
        self._settled = [_settled(progress), *self._settled][: self._generations]
        self._prune()

    def finish(self, chosen: Mapping[str, int]) -> None:
        """Keep the one epoch of each rule that the result reports; to be called once the result is written."""
        for rule in self._rules:
            for epoch in self._folder.selected(rule):
                if epoch != chosen[rule]:
                    self._remove(rule, epoch)

    def _prune(self) -> None:
        knows_all = self._knows_all or len(self._settled) >= self._generations
        unknown = 0 if knows_all else min(self._settled)  # an older checkpoint may need any epoch before this one
        for rule in self._rules:
            epochs = sorted(self._folder.selected(rule))
            needed = {*epochs[-1:], *(epoch for epoch in epochs if epoch < unknown)}
            for settled in self._settled:
                needed.update([epoch for epoch in epochs if epoch < settled][-1:])
            for epoch in set(epochs) - needed:
                self._remove(rule, epoch)

    def _remove(self, rule: str, epoch: int) -> None:
        path = self._folder.weights_of(rule, epoch)
        remove_leftovers(path.parent, f"{path.name}*")  # the checksum too


def _settled(progress: Progress) -> int:
    """How many epochs are not scored again by a run that goes on from there."""
    return max(progress.epoch - (progress.step == 0), 0)
