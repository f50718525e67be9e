"""The batches that a network is trained on: drawn, gathered by view, augmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.data.augment import Augmentation
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.networks.network import MODALITIES, View
from bdlf.system.errors import InputError


class Batch(NamedTuple):
    """k blocks of n rows, on the device."""

    images: Float[Tensor, "rows 3 height width"]
    """Augmented and normalised."""
    labels: Int[Tensor, " rows"]
    """The same n labels for every block: classes from 0, `IdentitySampler.labels`."""


class Batches:
    """The batches of a run. Each is a function of the seed, the epoch and the step, whatever was drawn before.

    `rows[i]` is the row of `store` that holds the sampler's image i. A batch has one block for each of `views`, in
    their order. An image that several views show is fetched once; every view draws its own augmentation. The memory of
    a batch is used again for the next one.
    """

    def __init__(
        self,
        sampler: IdentitySampler,
        store: Images,
        rows: Int[np.ndarray, " images"],
        augmentation: Augmentation,
        views: Sequence[View],
        *,
        seed: int,
    ) -> None:
        self.sampler, self.store = sampler, store
        self._rows, self._augmentation, self._seed = rows, augmentation, seed
        self._labels = torch.from_numpy(sampler.labels)
        n = sampler.batch_size // len(MODALITIES)
        self._exchangeable = torch.tensor([view.recolour == "exchange" for view in views]).repeat_interleave(n)
        starts = torch.tensor([MODALITIES.index(view.modality) * n for view in views])
        self._order = (starts[:, None] + torch.arange(n)).flatten()
        """Which of the images that the sampler drew, both modalities one after the other, each row of a batch shows."""
        self._as_drawn = torch.equal(self._order, torch.arange(sampler.batch_size))
        self._drawn: tuple[int, np.ndarray] | None = None
        self._memory: Tensor | None = None

    def of(self, epoch: int, steps: Sequence[int]) -> Iterator[Batch]:
        """The batches of these steps of an epoch; the next ones are fetched while one is in use."""
        drawn = self._epoch(epoch)
        fetched = self.store.batches(self._rows[drawn[list(steps)]])
        for step, images in zip(steps, fetched, strict=True):
            yield self._batch(images, epoch, step)

    def again(self, epoch: int, step: int) -> Batch:
        """One batch, for example of a step that has gone wrong."""
        return self._batch(self.store.take(self._rows[self._epoch(epoch)[step]]), epoch, step)

    def identities(self, epoch: int, step: int) -> list[int]:
        """The pids in a batch, ascending."""
        pids: list[int] = self.sampler.pids[np.unique(self.sampler.labels[self._epoch(epoch)[step]])].tolist()
        return pids

    def _epoch(self, epoch: int) -> np.ndarray:
        """(steps, 2n): the sampler's images of every batch, the visible ones first."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self.sampler.epoch(epoch).reshape(self.sampler.steps_per_epoch, -1)
        return self._drawn[1]

    def _batch(self, images: Tensor, epoch: int, step: int) -> Batch:
        labels = self._labels[self._epoch(epoch)[step]]
        require_equal_blocks(labels, len(MODALITIES))
        if not self._as_drawn:
            images, labels = images.index_select(0, self._order.to(images.device)), labels[self._order]
        random = generator(self._seed, epoch, step)
        self._memory = self._augmentation(images, self._exchangeable, random, out=self._memory)
        return Batch(self._memory, labels.to(images.device, non_blocking=True))


def generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """The random numbers of one step's augmentation, on the CPU."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def require_equal_blocks(labels: Int[Tensor, " rows"], blocks: int) -> None:
    """Refuse labels that differ between the blocks of a batch.

    The caller asks this while the labels are on the host: to look at them on a device would make the host wait.

    Raises:
        InputError: no rows, a number of rows that `blocks` does not divide, or blocks with different labels.
    """
    if len(labels) and len(labels) % blocks == 0:
        first, *others = labels.chunk(blocks)
        if all(torch.equal(first, other) for other in others):
            return
    raise InputError(
        f"labels of {len(labels)} rows: each of the {blocks} blocks must have the same labels row by row; "
        "draw batches with the identity sampler"
    )
