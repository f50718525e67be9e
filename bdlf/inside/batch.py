"""The figure of a training batch: what the network is fed, after augmentation, with every view of the method."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bdlf.data.augment import MEAN, STD
from bdlf.data.batches import Batch
from bdlf.datasets.description import MODALITIES
from bdlf.inside.style import bare, blank, styled
from bdlf.networks.network import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bdlf.experiment import Experiment

MOST = 32
"""How many images of a view are shown."""
_RECOLOURED = {
    "none": "",
    "exchange": "some with one channel in all three",
    "always": "one channel in all three",
    "adaptive": "colours adaptively removed",
    "mix": "mixed into one channel",
}


def batch_figure(
    run: Experiment,
    *,
    epoch: int = 0,
    step: int = 0,
    width: int = 170,
    device: str | torch.device = "cpu",
) -> Figure:
    """The images of one training batch as the network of `run` gets them: cropped, mirrored, erased, recoloured.

    Every view of the method has lines of its own, silhouettes too. The same place in every view shows the same
    identity, whose number in the dataset stands above the first of its images. Of more than `MOST` images of a view,
    the first so many are shown. Raises InputError if the training images cannot be opened.
    """
    batch, pids = training_batch(run, epoch=epoch, step=step, device=device)
    views = run.network.views
    blocks = pixels(batch.images).chunk(len(views))
    shown = min(MOST, len(blocks[0]))
    columns = min(16 if width > 100 else 8, shown)
    lines = math.ceil(shown / columns)
    height, across = blocks[0].shape[1:3]
    with styled():
        figure = blank(width, len(views) * (lines * (width / columns * height / across + 3) + 6) + 4)
        parts = figure.subfigures(len(views), 1, squeeze=False)[:, 0]
        for part, view, block in zip(parts, views, blocks, strict=True):
            grid = part.subplots(lines, columns, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02}).ravel()
            for at, axes in enumerate(grid):
                bare(axes)
                if at < shown:
                    axes.imshow(block[at].numpy())
                    if at == 0 or pids[at] != pids[at - 1] or at % columns == 0:
                        axes.set_title(str(pids[at]), fontsize=6, loc="left")
            part.suptitle(described(view), fontsize=7)
    return figure


def batch_numbers(run: Experiment, *, epoch: int = 0, step: int = 0) -> dict[str, Any]:
    """The views of the batch, in words, how many images each has, and the identities in the batch."""
    batch = run.sampler.batch_size // len(MODALITIES)
    views = [described(view) for view in run.network.views]
    drawn = run.sampler.labels[run.sampler.epoch(epoch).reshape(run.sampler.steps_per_epoch, -1)[step]]
    return {"views": views, "images_of_each": batch, "pids": run.sampler.pids[np.unique(drawn)].tolist()}


def training_batch(
    run: Experiment, *, epoch: int = 0, step: int = 0, device: str | torch.device = "cpu"
) -> tuple[Batch, np.ndarray]:
    """One training batch of `run`, and the identity of each of the n images that every view shows, (n,)."""
    batch = run.batches(run.store(torch.device(device))).again(epoch, step)
    labels = batch.labels[: len(batch.labels) // len(run.network.views)].cpu().numpy()
    return batch, run.sampler.pids[labels]


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Normalised images (n, 3, h, w) as pixels (n, h, w, 3) in 0..1. The normalisation of `normalize` is undone."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images.float().cpu() * std + mean).clamp(0, 1).permute(0, 2, 3, 1)


def described(view: View) -> str:
    """A view in words, like `vis: visible images, some with one channel in all three`."""
    what = (
        f"silhouettes of {MODALITIES[view.modality]} images"
        if view.silhouette
        else f"{MODALITIES[view.modality]} images"
    )
    colours = _RECOLOURED[view.recolour]
    return f"{view.name}: {what}" + (f", {colours}" if colours and not view.silhouette else "")
