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
    seed: int = 0
    """Seeds what the network draws in the training step, such as dropout. It depends on seed, epoch and step alone."""


class Batches:
    """The batches of a run. A batch depends on the seed, the epoch and the step alone, not on earlier batches.

    - `rows[i]` is the row of `store` that holds the image which the sampler calls i.
    - `views`: a batch has one block for each view, in this order. An image that several views show is fetched once, and
      so is a silhouette. Every view draws an augmentation of its own.
    - `silhouettes` holds the body-shape maps of the images that the sampler draws from. Its row i belongs to the image
      which the sampler calls i. It is given exactly if a view shows silhouettes. They are cropped and mirrored, but
      neither erased nor recoloured.

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
        silhouettes: Images | None = None,
    ) -> None:
        shown = torch.tensor([view.silhouette for view in views])
        if bool(shown.any()) != (silhouettes is not None):
            raise ValueError("give silhouettes exactly if a view shows them")
        self.sampler, self.store = sampler, store
        self._augmentation, self._seed = augmentation, seed
        self._sources = [(store, rows)]
        """Where images are fetched, and silhouettes if a view shows them: a store, and its row for each image."""
        if silhouettes is not None:
            self._sources.append((silhouettes, np.arange(len(silhouettes))))
        self._labels = torch.from_numpy(sampler.labels)
        n = sampler.batch_size // len(MODALITIES)
        colours = torch.tensor([RECOLOURINGS.index(view.recolour) for view in views])
        self._recolour = colours.where(~shown, RECOLOURINGS.index("none")).repeat_interleave(n)
        self._erasable = None if silhouettes is None else (~shown).repeat_interleave(n)
        starts = [list(MODALITIES).index(view.modality) * n for view in views]
        self._blocks = [(int(view.silhouette), slice(at, at + n)) for view, at in zip(views, starts, strict=True)]
        """For each view its source, and the place of its images among the drawn ones, visible ones first."""
        self._as_drawn = self._blocks == [(0, slice(0, n)), (0, slice(n, 2 * n))]
        self._drawn: tuple[int, np.ndarray] | None = None
        self._memory: Tensor | None = None

    def of(self, epoch: int, steps: Sequence[int]) -> Iterator[Batch]:
        """Yields the batches of these `steps` of an epoch. While one is in use, the images of the next are fetched."""
        drawn = self._epoch(epoch)[list(steps)]
        fetched = [source.batches(rows[drawn]) for source, rows in self._sources]
        for step, *images in zip(steps, *fetched, strict=True):
            yield self._batch(images, epoch, step)

    def again(self, epoch: int, step: int) -> Batch:
        """The batch of one step, for example of a step that has gone wrong."""
        drawn = self._epoch(epoch)[step]
        return self._batch([source.take(rows[drawn]) for source, rows in self._sources], epoch, step)

    def identities(self, epoch: int, step: int) -> list[int]:
        """The dataset's numbers of the identities in a batch, ascending."""
        pids: list[int] = self.sampler.pids[np.unique(self.sampler.labels[self._epoch(epoch)[step]])].tolist()
        return pids

    def _epoch(self, epoch: int) -> np.ndarray:
        """(steps, 2n): the images of each batch, by the sampler's numbers. The visible ones stand first."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self.sampler.epoch(epoch).reshape(self.sampler.steps_per_epoch, -1)
        return self._drawn[1]

    def _batch(self, fetched: Sequence[Tensor], epoch: int, step: int) -> Batch:
        """The batch of one step, from what each source has for the images that the sampler drew."""
        labels = self._labels[self._epoch(epoch)[step]]
        require_equal_blocks(labels, len(MODALITIES))
        images = fetched[0]
        if not self._as_drawn:
            images = torch.cat([fetched[source][block] for source, block in self._blocks])
            labels = torch.cat([labels[block] for _, block in self._blocks])
        random = generator(self._seed, epoch, step)
        self._memory = self._augmentation(images, self._recolour, random, erasable=self._erasable, out=self._memory)
        return Batch(self._memory, labels.to(images.device, non_blocking=True), random.initial_seed())


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
