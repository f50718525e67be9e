"""Features that a probe of a run is compared with: pixels, an untrained network, and the true factors."""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bdlf.data.images import Images
from bdlf.data.synthetic.factors import FACTOR_KINDS
from bdlf.experiment import Experiment
from bdlf.inside.features import InsideFeatures, scored_features
from bdlf.inside.targets import true_factors
from bdlf.methods import build_network

CONTROLS = ("untrained", "pixels", "factors")
"""The names of the features that `with_controls` adds."""
_PIXELS = (16, 8)
_CHUNK = 256


def with_controls(run: Experiment, inside: InsideFeatures) -> InsideFeatures:
    """The features of `inside`, which are those of `run`, and after them the controls.

    - "untrained": the Z of a network of the run's configuration with random weights, drawn with the run's seed. What
      it holds needs no training.
    - "pixels": the images, averaged over an even grid of 16 x 8 cells.
    - "factors": all true factors of the synthetic set, without the modality. What a probe does not read from them it
      cannot read from anything, because there are too few identities to fit it. Other datasets lack it.
    """
    network = run.network
    device = next(network.parameters()).device
    store = run.store(device)
    identities = _identities(network)
    untrained = build_network(run.config, identities, run.objective, weights="none")
    cast(nn.Module, untrained).to(device).eval()
    added = {
        "untrained": scored_features(run, untrained, store, inside.rows, label="untrained"),
        "pixels": _pixels(store, inside.rows),
    }
    if has_factors(inside):
        added["factors"] = true_factors(inside.table)
    return dataclasses.replace(inside, features={**inside.features, **added})


def has_factors(inside: InsideFeatures) -> bool:
    """Whether the images are of the synthetic set, whose factors are known."""
    return set(FACTOR_KINDS) <= set(inside.table)


def _identities(network: object) -> int:
    """The number of identities that a network tells apart; 1 if it has no classifier. It does not touch the features,
    but building a network needs it."""
    heads = [part for name, part in cast(nn.Module, network).named_children() if name.startswith("classifier")]
    return next((head.out_features for head in heads if isinstance(head, nn.Linear)), 1)


@torch.inference_mode()
def _pixels(store: Images, rows: np.ndarray) -> np.ndarray:
    """(m, 3 x 16 x 8) float32: the images `rows`, averaged over a grid, in 0..1."""
    found = []
    for images in store.batches(rows[begin : begin + _CHUNK] for begin in range(0, len(rows), _CHUNK)):
        grid = F.adaptive_avg_pool2d(images.permute(0, 3, 1, 2).float() / 255, _PIXELS)
        found.append(grid.flatten(1).cpu().numpy())
    return np.concatenate(found)
