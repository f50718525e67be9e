"""The methods. Each has a folder or a file of its own, with its network and the views that train the network."""

from __future__ import annotations

from bdlf.config import Config
from bdlf.methods import bdlf, deen, mmn, sgiel, two_stream
from bdlf.methods.bdlf import BDLF
from bdlf.methods.deen import DEEN
from bdlf.methods.mmn import MMN
from bdlf.methods.sgiel import SGIEL
from bdlf.networks.backbone import Backbone
from bdlf.networks.network import Network
from bdlf.objective import Objective
from bdlf.system.errors import check_choice

_EMBEDDED = {
    "bdlf": bdlf.EMBEDDED,
    **dict.fromkeys(two_stream.VIEWS, two_stream.EMBEDDED),
    "deen": deen.EMBEDDED,
    "mmn": mmn.EMBEDDED,
    "sgiel": sgiel.EMBEDDED,
}
METHODS = tuple(_EMBEDDED)
"""Values of `method.name`."""


def embedded_features(method: str) -> tuple[str, ...]:
    """Values of `evaluation.feature` for a method: what its network can return in inference."""
    return _EMBEDDED[method]


def build_network(config: Config, identities: int, objective: Objective, *, weights: str) -> Network:
    """Build the network of the method that `config` names.

    The network classifies `identities` persons and builds only what `objective` reads. `weights` says where the
    backbone's initial weights come from: `imagenet`, `none` (random), or a file. Raises InputError for an unknown
    option, and for weights that cannot be had.
    """
    method = config.method
    check_choice("method.name", method.name, METHODS)
    backbone = Backbone(
        config.backbone.name,
        weights=weights,
        last_stride=config.backbone.last_stride,
        pooling=config.backbone.pooling,
        seed=config.seed,
    )
    features, logits, seed = objective.features, objective.logits, config.seed
    if method.name in two_stream.VIEWS:
        return two_stream.build(
            method.name, backbone, identities, features=features, logits=logits, options=method.two_stream, seed=seed
        )
    if method.name == "deen":
        blocks, options = objective.blocks, method.deen
        return DEEN(backbone, identities, features=features, logits=logits, blocks=blocks, options=options, seed=seed)
    if method.name == "mmn":
        return MMN(backbone, identities, features=features, logits=logits, options=method.mmn, seed=seed)
    if method.name == "sgiel":
        return SGIEL(backbone, identities, features=features, logits=logits, seed=seed)
    return BDLF(backbone, identities, features=features, logits=logits, dfe=config.dfe, beg=config.beg, seed=seed)
