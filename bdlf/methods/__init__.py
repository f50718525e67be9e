"""The methods. Each has a folder or a file of its own, with its network and the views that train the network."""

from __future__ import annotations

from bdlf.config import Config
from bdlf.methods import two_stream
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.networks.network import Network
from bdlf.objective import Objective
from bdlf.system.errors import check_choice

METHODS = ("bdlf", *two_stream.VIEWS)
"""Values of `method.name`."""


def build_network(config: Config, identities: int, objective: Objective, *, weights: str) -> Network:
    """Build the network of the method that `config` names.

    The network classifies `identities` persons and builds only what `objective` reads. `weights` says where the
    backbone's initial weights come from: `imagenet`, `none` (random), or a file. Raises InputError for an unknown
    option, and for weights that cannot be had.
    """
    check_choice("method.name", config.method.name, METHODS)
    backbone = Backbone(
        config.backbone.name,
        weights=weights,
        last_stride=config.backbone.last_stride,
        pooling=config.backbone.pooling,
        seed=config.seed,
    )
    features, logits, seed = objective.features, objective.logits, config.seed
    if config.method.name in two_stream.VIEWS:
        return two_stream.build(
            config.method.name,
            backbone,
            identities,
            features=features,
            logits=logits,
            options=config.method.two_stream,
            seed=seed,
        )
    return BDLF(backbone, identities, features=features, logits=logits, dfe=config.dfe, beg=config.beg, seed=seed)
