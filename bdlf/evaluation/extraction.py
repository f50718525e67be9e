"""Extracts the features of images. Every distinct image goes through the network once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from PIL import Image
from torch import Tensor

from bdlf.data.augment import normalize
from bdlf.data.images import Images
from bdlf.datasets.description import MODALITIES
from bdlf.system.errors import InputError, check_choice


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
    """L2-normalised float32 features of the images `rows` of `store`, in the order of `rows`.

    - `embed` gets a float batch (b, 3, h, w) of one modality and the name of that modality, and returns features
      (b, c). The caller has put the network of `embed` into evaluation mode.
    - `modalities` has the modality of each row, `vis` or `ir`. A batch never mixes the modalities.
    - `flip`: the feature of an image is the mean of the features of the image and of its mirror image [lineage]. The
      mean is normalised in float64.

    A row that occurs twice in `rows` is embedded once.

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


def extract_array(
    embed: Callable[[Tensor, str], Tensor],
    images: np.ndarray,
    modality: str,
    *,
    size: tuple[int, int],
    device: torch.device,
    batch_size: int,
    flip: bool,
) -> Float[np.ndarray, "n c"]:
    """Features, as `extract` gives them, of RGB `images` of one `modality`, which are given as an array.

    The array is uint8 of shape (n, height, width, 3). Images of another height and width than `size` are resized to it
    with LANCZOS, as the images of a dataset are.

    Raises InputError on an unknown modality, on an array of another type or shape, and where `extract` raises it.
    """
    check_choice("modality", modality, MODALITIES)
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise InputError(
            f"embed() got an array of {images.dtype}, shape {images.shape}; "
            "give uint8 RGB images of shape (n, height, width, 3)"
        )
    if len(images) and images.shape[1:3] != size:
        small = [Image.fromarray(one).resize(size[::-1], Image.Resampling.LANCZOS) for one in images]
        images = np.stack([np.asarray(one) for one in small])
    store, rows = Images(images, device, "disk"), np.arange(len(images))
    return extract(embed, store, rows, np.full(len(rows), modality), batch_size=batch_size, flip=flip)


def _embedded(
    embed: Callable[[Tensor, str], Tensor], modality: str, store: Images, rows: np.ndarray, batch_size: int, flip: bool
) -> Iterator[Tensor]:
    """Yields the features of one modality's images batch by batch.

    They stay on the device, because the host would wait for the device if it copied each batch.
    """
    batch = None
    for images in store.batches(rows[begin : begin + batch_size] for begin in range(0, len(rows), batch_size)):
        batch = normalize(images, out=batch if batch is not None and len(batch) == len(images) else None)
        features = embed(batch, modality).float()
        if flip:
            features = features + embed(batch.flip(3), modality).float()  # the sum has the direction of the mean
        yield features
