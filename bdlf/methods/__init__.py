"""The methods: a room or a file for each, with its network and the views of the images that it is trained on."""

from __future__ import annotations

from bdlf.config import Config
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.networks.network import Network
from bdlf.objective import Objective
from bdlf.system.errors import check_choice

METHODS = ("bdlf",)
"""Values of `method.name`."""


def build_network(config: Config, identities: int, objective: Objective, *, weights: str) -> Network:
    """The network of the method that `config` names, to tell so many identities apart, as `objective` needs it.

    `weights` are those of the backbone: `imagenet`, `none`, or a file. Raises InputError for an unknown option.
    """
    check_choice("method.name", config.method.name, METHODS)
    backbone = Backbone(
        config.backbone.name,
        weights=weights,
        last_stride=config.backbone.last_stride,
        pooling=config.backbone.pooling,
        seed=config.seed,
    )
    needed = {"features": objective.features, "logits": objective.logits}
    return BDLF(backbone, identities, **needed, dfe=config.dfe, beg=config.beg, seed=config.seed)
