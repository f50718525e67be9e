"""Features of images: every distinct image through the network once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from bdlf.data.augment import normalize
from bdlf.data.images import Images
from bdlf.system.errors import InputError


@torch.inference_mode()
def extract(
    embed: Callable[[Tensor, str], Tensor],
    store: Images,
    rows: Int[np.ndarray, " m"],
    modalities: Shaped[np.ndarray, " m"],
    *,
    batch_size: int,
    flip: bool = True,
) -> Float[np.ndarray, "m c"]:
    """L2-normalised float32 features of the images `rows` of `store`, in the order asked for.

    `embed` takes a float batch (b, 3, h, w) of one modality, and the name of that modality, to features (b, c). The
    caller has put its network into evaluation mode. `modalities` names that of each of the rows, `vis` or `ir`; the two
    are embedded in batches of their own. A row that is asked for twice is embedded once. With `flip` the feature is the
    mean of the image's and its mirror image's [lineage], normalised afterwards; that is done in float64.

    Raises InputError on no rows, on a row outside the store, and on a feature that is not finite or has length 0.
    """
    if rows.size == 0:
        raise InputError("no image to embed: the list of rows is empty")
    distinct, first, position = np.unique(rows, return_index=True, return_inverse=True)
    if distinct[0] < 0 or distinct[-1] >= len(store):
        raise InputError(f"rows {distinct[0]}..{distinct[-1]} are asked of a store of {len(store)} images")
    of_each = modalities[first]
    found, order = [], []
    for modality in sorted(set(of_each.tolist())):
        chosen = np.flatnonzero(of_each == modality)
        found += list(_embedded(embed, modality, store, distinct[chosen], batch_size, flip))
        order.append(chosen)
    features = torch.cat(found).cpu().double()
    features = features[np.argsort(np.concatenate(order))]
    features /= features.norm(dim=1, keepdim=True)
    bad = np.flatnonzero(~torch.isfinite(features).all(dim=1).numpy())
    if bad.size:
        raise InputError(
            f"the features of {bad.size} of {len(distinct)} images, row {distinct[bad[0]]} first, are not finite or "
            "of length 0: the weights are damaged or training diverged"
        )
    return features.float().numpy()[position]


def _embedded(
    embed: Callable[[Tensor, str], Tensor], modality: str, store: Images, rows: np.ndarray, batch_size: int, flip: bool
) -> Iterator[Tensor]:
    """Features of one modality's images, batch by batch, on the device: a copy to the host would wait for it."""
    batch = None
    for images in store.batches(rows[begin : begin + batch_size] for begin in range(0, len(rows), batch_size)):
        batch = normalize(images, out=batch if batch is not None and len(batch) == len(images) else None)
        features = embed(batch, modality).float()
        if flip:
            features = features + embed(batch.flip(3), modality).float()  # the mean's direction is the sum's
        yield features
