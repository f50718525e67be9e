"""The batches that a network is trained on: images are drawn, arranged in one block for each view, and augmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bdlf.data.augment import RECOLOURINGS, Augmentation
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.datasets.description import MODALITIES
from bdlf.networks.network import View
from bdlf.system.errors import InputError


class Batch(NamedTuple):
    """k blocks of n rows, on the device."""

    images: Float[Tensor, "rows 3 height width"]
    """Augmented and normalised."""
    labels: Int[Tensor, " rows"]
    """Class numbers from 0, as in `IdentitySampler.labels`. Every block has the same n labels."""


class Batches:
    """The batches of a run. A batch depends on the seed, the epoch and the step alone, not on earlier batches.

    - `rows[i]` is the row of `store` that holds the image which the sampler calls i.
    - `views`: a batch has one block for each view, in this order. An image that several views show is fetched once.
      Every view draws an augmentation of its own.

    All batches share one memory: a batch is overwritten when the next one is asked for.
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
        self._recolour = torch.tensor([RECOLOURINGS.index(view.recolour) for view in views]).repeat_interleave(n)
        starts = torch.tensor([list(MODALITIES).index(view.modality) * n for view in views])
        self._order = (starts[:, None] + torch.arange(n)).flatten()
        """For each row of a batch, the position of its image among those that the sampler drew, visible ones first."""
        self._as_drawn = torch.equal(self._order, torch.arange(sampler.batch_size))
        self._drawn: tuple[int, np.ndarray] | None = None
        self._memory: Tensor | None = None

    def of(self, epoch: int, steps: Sequence[int]) -> Iterator[Batch]:
        """Yields the batches of these `steps` of an epoch. While one is in use, the images of the next are fetched."""
        drawn = self._epoch(epoch)
        fetched = self.store.batches(self._rows[drawn[list(steps)]])
        for step, images in zip(steps, fetched, strict=True):
            yield self._batch(images, epoch, step)

    def again(self, epoch: int, step: int) -> Batch:
        """The batch of one step, for example of a step that has gone wrong."""
        return self._batch(self.store.take(self._rows[self._epoch(epoch)[step]]), epoch, step)

    def identities(self, epoch: int, step: int) -> list[int]:
        """The dataset's numbers of the identities in a batch, ascending."""
        pids: list[int] = self.sampler.pids[np.unique(self.sampler.labels[self._epoch(epoch)[step]])].tolist()
        return pids

    def _epoch(self, epoch: int) -> np.ndarray:
        """(steps, 2n): the images of each batch, by the sampler's numbers. The visible ones stand first."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self.sampler.epoch(epoch).reshape(self.sampler.steps_per_epoch, -1)
        return self._drawn[1]

    def _batch(self, images: Tensor, epoch: int, step: int) -> Batch:
        labels = self._labels[self._epoch(epoch)[step]]
        require_equal_blocks(labels, len(MODALITIES))
        if not self._as_drawn:
            images, labels = images.index_select(0, self._order.to(images.device)), labels[self._order]
        random = generator(self._seed, epoch, step)
        self._memory = self._augmentation(images, self._recolour, random, out=self._memory)
        return Batch(self._memory, labels.to(images.device, non_blocking=True))


def generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """A generator on the CPU for the augmentation of one step, which depends on the three numbers alone."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def require_equal_blocks(labels: Int[Tensor, " rows"], blocks: int) -> None:
    """Refuse labels that differ between the blocks of a batch.

    The caller calls this before it moves the labels to a device, because reading them there would make the host wait.

    Raises:
        InputError: there are no rows, `blocks` does not divide their number, or two blocks have different labels.
    """
    if len(labels) and len(labels) % blocks == 0:
        first, *others = labels.chunk(blocks)
        if all(torch.equal(first, other) for other in others):
            return
    raise InputError(
        f"labels of {len(labels)} rows: each of the {blocks} blocks must have the same labels row by row; "
        "draw batches with the identity sampler"
    )
