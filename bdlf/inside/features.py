"""The features inside a trained network, of every image of a split: Z, Z^B, Z^D, Zbar^D and the pooled Z^M."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from bdlf.assembly import read_listing
from bdlf.config import Dataset
from bdlf.data.augment import normalize
from bdlf.data.images import Images
from bdlf.evaluation import extract
from bdlf.evaluation.features_file import read_features
from bdlf.experiment import Experiment
from bdlf.methods.bdlf import BDLF
from bdlf.networks.network import Network
from bdlf.runs.record import images_of
from bdlf.system.errors import InputError, check_choice

FEATURES = {
    "Z": "comprehensive",
    "Z_B": "base",
    "Z_D": "detail",
    "Zbar_D": "detail_projected",
    "Z_M": "intermediate",
}
"""The names that `inside_features` knows, and the field of `bdlf.networks.embeddings.Embeddings` of each. Z^M, the maps
between the two halves of the backbone (Eq. 1), is no such field."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class InsideFeatures:
    """Features of m images by name, and what the listing says about these images."""

    features: dict[str, np.ndarray]
    """By name, each float32 (m, c). The names are those of `FEATURES`, as far as the network has them."""
    rows: np.ndarray
    """(m,) the row of each image in the run's table, ascending."""
    table: pd.DataFrame
    """(m rows) those rows of the listing, numbered from 0: `pid`, `camid`, `modality`, `path` and, on the synthetic
    set, the factors. Line i describes line i of every feature."""


def inside_features(
    run: Experiment,
    split: str = "test",
    *,
    device: str | torch.device | None = None,
    names: Sequence[str] | None = None,
) -> InsideFeatures:
    """The features of all images of `split` from the network that the run's results report first.

    - "Z" is what the run is scored with: L2-normalised, with the run's `evaluation.feature` and `evaluation.flip`. A
      retrieval on it gives the run's own mAP.
    - "Z_B" = Z (I - P) and "Zbar_D" = Z P of Eq. 9 are made of the Z after the BN-neck, of the image without its mirror
      image, not normalised.
    - "Z_D" of Eq. 5 is made of a batch, because every row attends to the rows of the other modality (Eq. 4). The images
      are arranged as in training: `batch.identities` x `batch.images` of each modality (fewer identities if the split
      has fewer), and row i of both modalities shows the same identity. The network is in evaluation mode, so BatchNorm
      uses its running statistics. Every image counts once. Images are repeated where an identity has unequally many of
      both modalities, and where the last batch is not full; the first occurrence counts. The arrangement is drawn with
      the seed of the run. If dfe=off there is no attention, and the arrangement changes nothing.
    - "Z_M" is Z^M of Eq. 1, the maps after stage `dfe.stage`, averaged over their positions.

    `names` of None stands for all that the network has: "Z" for every method, and for BDLF "Z_M" and those of the rest
    that the variant builds. `device` of None is where the network lies; another device moves it there.

    Raises InputError for an unknown split or name, for a feature that the network does not have, for a split without
    images, for images that are not those of the run, and for "Z_D" if an identity lacks images of one modality.
    """
    check_choice("split", split, SPLITS)
    names = _asked(run, names)
    table = run.table
    rows = np.flatnonzero(table["split"] == split)
    if not rows.size:
        raise InputError(f"split={split}: the run {run.folder.path} has no images in it; test always has some")
    recorded = getattr(run, "checkpoint", {}).get("fingerprint")
    if recorded is not None:
        run.folder.require_fingerprint(images_of(recorded), run.images_fingerprint)
    network = run.network
    where = next(network.parameters()).device if device is None else torch.device(device)
    network.to(where)
    network.eval()
    store = run.store(where)
    found: dict[str, np.ndarray] = {}
    if "Z" in names:
        found["Z"] = scored_features(run, network, store, rows)
    others = [name for name in names if name != "Z"]
    if others:
        assert isinstance(network, BDLF)  # `_asked` has refused these names for every other network
        pooled = _of_rows(network, store, rows, run.scoring.batch_size, maps="Z_M" in names)
        if "Z_M" in pooled:
            found["Z_M"] = pooled.pop("Z_M").cpu().numpy()
        found |= _of_batches(run, network, pooled, table.iloc[rows], [name for name in others if name != "Z_M"])
    return InsideFeatures({name: found[name] for name in names}, rows, table.iloc[rows].reset_index(drop=True))


def scored_features(
    run: Experiment, network: Network, store: Images, rows: np.ndarray, *, label: str = "Z"
) -> np.ndarray:
    """What `network` is scored with, of the images `rows` of `store`: L2-normalised float32, (m, c).

    The images that the run's protocol needs are embedded first, in the batches in which scoring embeds them, so that
    their features are equal to the last bit. `label` names the features beside the progress bar.
    """
    how, modalities = run.scoring, run.table["modality"].to_numpy()
    trials = [trial for setting in run.settings["test"] for trial in setting.trials]
    needed = np.isin(rows, np.concatenate([side for trial in trials for side in trial]))
    embed = partial(network.embed, feature=how.feature)
    parts, order = [], []
    with tqdm(total=len(rows) * (1 + how.flip), desc=label, unit="img", disable=None, leave=False) as bar:

        def watched(images: torch.Tensor, modality: str) -> torch.Tensor:
            bar.update(len(images))
            return embed(images, modality)

        for chosen in (np.flatnonzero(needed), np.flatnonzero(~needed)):
            if chosen.size:
                some = rows[chosen]
                parts.append(extract(watched, store, some, modalities[some], batch_size=how.batch_size, flip=how.flip))
                order.append(chosen)
    features: np.ndarray = np.concatenate(parts)[np.argsort(np.concatenate(order))]
    return features


def features_of_file(file: str | Path, source: Dataset) -> InsideFeatures:
    """The features in a `features.npz` of any code, under the name "Z", in the order of the listing of `source`.

    They are the L2-normalised features of test images; `bdlf.evaluation.features_file` describes the file. Rows are
    those of the listing of the test images. Raises InputError for a damaged file and for one that does not fit.
    """
    listing = read_listing(source, splits=("test",))
    features, rows, _ = read_features(Path(file), listing)
    order = np.argsort(rows)
    return InsideFeatures({"Z": features[order]}, rows[order], listing.loc[rows[order]].reset_index(drop=True))


def feature_names(run: Experiment) -> tuple[str, ...]:
    """The names of the features that the network of `run` has, in the order of `FEATURES`."""
    network = run.network
    if not isinstance(network, BDLF):
        return ("Z",)
    has = {"Z": True, "Z_M": True, "Z_D": network.detail is not None}
    return tuple(name for name in FEATURES if has.get(name, network.projection is not None))


def _asked(run: Experiment, names: Sequence[str] | None) -> tuple[str, ...]:
    has = feature_names(run)
    if names is None:
        return has
    for name in names:
        check_choice("feature", name, FEATURES)
        if name not in has:
            method, variant = run.config.method.name, run.config.variant
            what = f"variant={variant}" if method == "bdlf" else f"method={method}"
            raise InputError(f"{name}: the network of {what} has no such feature; it has {', '.join(has)}")
    return tuple(name for name in FEATURES if name in names)


@torch.inference_mode()
def _of_rows(network: BDLF, store: Images, rows: np.ndarray, batch_size: int, *, maps: bool) -> dict[str, torch.Tensor]:
    """What `BDLF.rows` gives of each image, in the order of `rows`, and "Z_M" if `maps` asks for it."""
    found: dict[str, list[torch.Tensor]] = {}
    with tqdm(total=len(rows), desc="inside", unit="img", disable=None, leave=False) as bar:
        for images in store.batches(rows[begin : begin + batch_size] for begin in range(0, len(rows), batch_size)):
            intermediate = network.backbone.fore(normalize(images), network.stage)
            pooled = {"pooled": network.backbone.pool(network.backbone.rear(intermediate, network.stage))}
            if network.detail is not None:
                pooled["detail"] = network.detail.pool(intermediate)
            if maps:
                pooled["Z_M"] = intermediate.float().mean((2, 3))
            for name, values in pooled.items():
                found.setdefault(name, []).append(values)
            bar.update(len(images))
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.inference_mode()
def _of_batches(
    run: Experiment, network: BDLF, pooled: dict[str, torch.Tensor], table: pd.DataFrame, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The features `names`, which `BDLF.batch` makes of what `_of_rows` gave of the images of `table`."""
    if not names:
        return {}
    batch = run.config.batch
    pids, modalities = table["pid"].to_numpy(), table["modality"].to_numpy()
    device = pooled["pooled"].device
    found: dict[str, np.ndarray] = {}
    batches = paired_batches(pids, modalities, identities=batch.identities, images=batch.images, seed=run.config.seed)
    for halves in batches[::-1]:  # backwards, so that of an image which occurs twice the first occurrence stays
        lines = halves.ravel()
        picked = torch.from_numpy(lines).to(device)
        labels = torch.from_numpy(pids[lines].astype(np.int64)).to(device)
        embeddings = network.batch({name: values[picked] for name, values in pooled.items()}, labels)
        for name in names:
            values = embeddings.feature(FEATURES[name])
            assert values is not None  # `feature_names` has said that the network builds it
            of_lines = values.float().cpu().numpy()
            every = found.setdefault(name, np.zeros((len(table), of_lines.shape[1]), np.float32))
            every[lines[::-1]] = of_lines[::-1]
    return found


def paired_batches(
    pids: np.ndarray, modalities: np.ndarray, *, identities: int, images: int, seed: int
) -> list[np.ndarray]:
    """Arranges m images in batches as in training: each an array (2, n), visible then infrared, of positions in `pids`.

    A batch has `identities` groups of `images` images of each modality (fewer groups if there are fewer identities).
    Column i of both rows shows the same identity. Every image occurs. An identity with fewer images of one modality
    repeats them, and the last batch is filled with the first groups. The groups of an identity are spread evenly over
    the batches, so that a batch shows different identities where they have equally many images.

    Raises InputError if an identity has no image of one modality.
    """
    random = np.random.default_rng(seed)
    groups: list[np.ndarray] = []
    places: list[np.ndarray] = []
    known = np.unique(pids)
    for pid in known.tolist():
        halves = [random.permutation(np.flatnonzero((pids == pid) & (modalities == name))) for name in ("vis", "ir")]
        if not all(half.size for half in halves):
            lacking = "infrared" if halves[0].size else "visible"
            raise InputError(
                f"Z_D attends from one modality to the other, but identity {pid} has no {lacking} image; leave Z_D out"
            )
        count = -(-max(half.size for half in halves) // images)
        filled = np.stack([np.resize(half, count * images) for half in halves])
        groups += np.split(filled, count, axis=1)
        places.append((np.arange(count) + random.random(count)) / count)
    order = np.argsort(np.concatenate(places), kind="stable")
    each = min(identities, len(known))
    batches = -(-len(order) // each)
    order = np.resize(order, batches * each).reshape(batches, each)
    return [np.concatenate([groups[group] for group in chosen], axis=1) for chosen in order.tolist()]
