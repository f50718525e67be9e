"""The methods: a room or a file for each, with its network, the views that it wants and the rows of its ablations."""

from __future__ import annotations

from bdlf.config import Config
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.networks.network import Network
from bdlf.objective import Objective


def build_network(config: Config, identities: int, objective: Objective, *, weights: str) -> Network:
    """The network that the objective of `config` needs, to tell so many identities apart.

    `weights` are those of the backbone: `imagenet`, `none`, or a file. Raises InputError for an unknown option.
    """
    backbone = Backbone(
        config.backbone.name,
        weights=weights,
        last_stride=config.backbone.last_stride,
        pooling=config.backbone.pooling,
        seed=config.seed,
    )
    return BDLF(
        backbone,
        identities,
        features=objective.features,
        logits=objective.logits,
        dfe=config.dfe,
        beg=config.beg,
        seed=config.seed,
    )
