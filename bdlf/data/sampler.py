"""Draws batches of P identities x (K visible + K infrared) images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from bdlf.system.errors import InputError


class IdentitySampler:
    """Draws batches in which row k shows the same identity in both modalities. Eqs. 2, 14, 16-19 and 21 need that.

    - `pids`, `modalities` ('vis' or 'ir'): one of each for every training image. Drawn indices are positions in them.
    - `identities`, `images`: a batch has `identities` x `images` images of each modality [paper: 8 x 4]. Identities are
      drawn without replacement, images with replacement [lineage].
    - `seed`: the batches of an epoch depend on it and on the number of the epoch.
    - `steps`: batches per epoch. None: floor(N / (identities x images)), at least 1, where N is the number of images of
      the larger modality [ours]. The lineage has one batch more.

    Raises `InputError` for fewer identities than a batch needs, an identity without images of one modality, an unknown
    modality, a number below 1, or different lengths of `pids` and `modalities`.
    """

    def __init__(
        self,
        pids: Int[ndarray, " rows"] | Sequence[int],
        modalities: Shaped[ndarray, " rows"] | Sequence[str],
        *,
        identities: int = 8,
        images: int = 4,
        seed: int = 0,
        steps: int | None = None,
    ) -> None:
        pids, modalities = np.asarray(pids), np.asarray(modalities)
        if pids.shape != modalities.shape:
            raise InputError(f"{len(pids)} pids and {len(modalities)} modalities: give one of each per image")
        infrared = modalities == "ir"
        unknown = sorted(set(modalities[~infrared]) - {"vis"})
        if unknown:
            raise InputError(f"unknown modality {unknown[0]!r} in the training images: use vis or ir")
        for name, value in (("identities", identities), ("images", images), ("steps", steps)):
            if value is not None and value < 1:
                raise InputError(f"{name}={value} in the sampler: give a number from 1")

        self.identities, self.images, self.seed = identities, images, seed
        self.batch_size = 2 * identities * images
        self.pids, labels = np.unique(pids, return_inverse=True)
        self.labels: Int[ndarray, " rows"] = labels.astype(np.int64)
        """The class of each image: its pid's position in `self.pids`, which holds all pids in ascending order."""
        if len(self.pids) < identities:
            raise InputError(
                f"a batch needs {identities} identities, but only {len(self.pids)} have training images: "
                "lower the identities per batch or give more data"
            )
        self._rows, self._starts, self._counts = [], [], []
        for word, own in (("visible", ~infrared), ("infrared", infrared)):
            rows = np.flatnonzero(own)
            rows = rows[np.argsort(self.labels[rows], kind="stable")]
            counts = np.bincount(self.labels[rows], minlength=len(self.pids))
            lacking = self.pids[counts == 0]
            if len(lacking):
                some = ", ".join(map(str, lacking[:5])) + (", ..." if len(lacking) > 5 else "")
                raise InputError(
                    f"{len(lacking)} identities have no {word} training image ({some}): "
                    "leave them out, or extract the dataset again"
                )
            self._rows.append(rows)
            self._counts.append(counts)
            self._starts.append(np.cumsum(counts) - counts)
        most = max(len(rows) for rows in self._rows)
        self.steps_per_epoch: int = steps if steps is not None else max(1, most // (identities * images))

    def epoch(self, epoch: int) -> Int[ndarray, "steps 2 n"]:
        """Indices of the images of all batches of one epoch: [:, 0] visible, [:, 1] infrared, n = identities x images.

        [:, 0, k] and [:, 1, k] show the same identity, and the images of an identity are neighbours. The result depends
        only on the seed and on `epoch`, so resuming a run needs no saved state.
        """
        random = np.random.default_rng(np.random.SeedSequence((self.seed, epoch)))
        # Sorting random numbers and taking the first identities draws without replacement, for all batches at once.
        order = random.random((self.steps_per_epoch, len(self.pids))).argsort(axis=1)
        drawn = order[:, : self.identities].repeat(self.images, axis=1)
        halves = [
            rows[starts[drawn] + random.integers(0, counts[drawn])]
            for rows, starts, counts in zip(self._rows, self._starts, self._counts, strict=True)
        ]
        return np.stack(halves, axis=1)
