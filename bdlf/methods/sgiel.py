"""SGIEL (Feng, Wu and Zheng, CVPR 2023): what is related to the body shape is told apart from the rest of a feature."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bdlf.datasets.description import MODALITIES
from bdlf.methods.inference import check_embed
from bdlf.networks.backbone import STAGES, Backbone
from bdlf.networks.embeddings import Embeddings
from bdlf.networks.heads import bn_neck, classifier
from bdlf.networks.network import View
from bdlf.networks.streams import stream
from bdlf.system.errors import check_choice

EMBEDDED = ("after_bn", "before_bn")
"""What inference can return: the feature after the BN-neck, or before it."""
BALANCED = (("related",), ("id_erased", "kl_erased"))
"""The two groups of terms whose weights follow their gradients."""
NARROWING = 4
"""C / D, the width of Z over that of the body shape: 2048 / 512 with ResNet-50, as released."""
_FEATURES = ("comprehensive_pooled", "comprehensive", "shape", "related", "related_projection")
_LOGITS = ("comprehensive", "shape", "erased", "related")


class PrivateNorms(nn.Module):
    """A ResNet with shared convolutions, and one set of BatchNorms for each of `vis`, `ir` and `shape`.

    The first convolution exists once for each modality, and the silhouettes of a modality pass that of their modality.
    Their first BatchNorm is their own for each modality too. All BatchNorms start with the scale and the shift of
    `backbone`, and with the running statistics of a new BatchNorm [lineage].

    `backbone` is taken over; its weights must be loaded.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        net = backbone.resnet
        stem = nn.Sequential(OrderedDict((name, getattr(net, name)) for name in ("conv1", "bn1", "relu", "maxpool")))
        stages = nn.Sequential(OrderedDict((f"layer{stage}", getattr(net, f"layer{stage}")) for stage in STAGES))
        backbone.resnet = nn.Identity()
        self.shared = backbone  # only its pooling is left
        own = {modality: copy.deepcopy(stem) for modality in MODALITIES}
        own |= {f"{modality}_shape": _with_own_norms(own[modality]) for modality in MODALITIES}
        self.stems = nn.ModuleDict(own)
        self.stages = nn.ModuleDict({name: _with_own_norms(stages) for name in (*MODALITIES, "shape")})
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()

    def forward(self, images: Float[Tensor, "rows 3 height width"], modality: str) -> Float[Tensor, "rows wide"]:
        """Images of one modality to pooled features."""
        return self.shared.pool(self.stages[modality](self.stems[modality](images)))

    def shapes(
        self, visible: Float[Tensor, "n 3 height width"], infrared: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, "rows wide"]:
        """Silhouettes of visible and of infrared images to pooled features, those of visible images first."""
        maps = torch.cat([self.stems["vis_shape"](visible), self.stems["ir_shape"](infrared)])
        return self.shared.pool(self.stages["shape"](maps))


class SGIELEmbedder(nn.Module):
    """The module of inference: the backbone of an image's modality, and the BN-neck of that modality."""

    def __init__(self, backbone: PrivateNorms, necks: nn.ModuleDict) -> None:
        super().__init__()
        self.backbone, self.necks = backbone, necks

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], modality: str = "vis"
    ) -> Float[Tensor, "rows wide"]:
        """Float images of one modality to Z, (rows, C)."""
        return cast(Tensor, self.necks[modality](self.backbone(images, modality)))


class SGIEL(nn.Module):
    """SGIEL: images and silhouettes of both modalities; the features that come out have the blocks `vis` and `ir`.

    Z is the neck feature of an image, and U is P with its columns scaled to unit length. The related feature is Z P,
    and the erased feature is Z - Z U U^T. The body-shape feature is the neck feature of a silhouette times Q. P and Q
    are (C, D) with D = C / 4. The classifier of Z also classifies the erased feature. The classifier of the body shape
    also classifies the related feature, but does not learn from it.

    - `backbone` is taken over; its weights must be loaded.
    - `features`, `logits`: what the objective reads.
    - `seed`: the random weights of each part depend on it and on the part alone.

    Raises:
        InputError: an unknown name.
    """

    views: tuple[View, ...] = (
        View("vis", "vis", recolour="exchange"),
        View("ir", "ir", recolour="adaptive"),
        View("vis_shape", "vis", silhouette=True),
        View("ir_shape", "ir", silhouette=True),
    )

    def __init__(
        self,
        backbone: Backbone,
        identities: int,
        *,
        features: Collection[str],
        logits: Collection[str],
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name in features:
            check_choice("feature", name, _FEATURES)
        for name in logits:
            check_choice("logits", name, _LOGITS)
        self._logits = frozenset(logits)
        self.backbone = PrivateNorms(backbone)
        width, narrow = backbone.width, backbone.width // NARROWING
        self.necks = nn.ModuleDict({name: bn_neck(width) for name in (*MODALITIES, "shape")})
        self.p: nn.Parameter | None = None
        self.q: nn.Parameter | None = None
        if {"related", "related_projection"} & set(features) or {"related", "erased"} & set(logits):
            self.p = _projection(width, narrow, seed, "p")
        self._reads_shape = "shape" in features or bool({"shape", "related"} & self._logits)
        if self._reads_shape:
            self.q = _projection(width, narrow, seed, "q")
        self.classifier = self.classifier_shape = None
        if {"comprehensive", "erased"} & self._logits:
            with stream(seed, "classifier"):
                self.classifier = classifier(width, identities)
        if {"shape", "related"} & self._logits:
            with stream(seed, "classifier_shape"):
                self.classifier_shape = classifier(narrow, identities)

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], labels: Int[Tensor, " rows"] | None = None
    ) -> Embeddings:
        """Training: all that the objective reads, of blocks of visible and infrared images and of their silhouettes."""
        return self.batch(self.rows(images), labels)

    def rows(self, images: Float[Tensor, "rows 3 height width"]) -> dict[str, Tensor]:
        """The pooled features of every image and silhouette, `pooled`, (rows, C)."""
        visible, infrared, *silhouettes = images.chunk(len(self.views))
        pooled = [self.backbone(visible, "vis"), self.backbone(infrared, "ir")]
        # If no term reads the body shape, the silhouettes are not computed.
        shapes = self.backbone.shapes(*silhouettes) if self._reads_shape else torch.zeros_like(torch.cat(pooled))
        return {"pooled": torch.cat([*pooled, shapes])}

    def batch(self, rows: Mapping[str, Tensor], labels: Int[Tensor, " rows"] | None = None) -> Embeddings:
        """BN-necks, projections and classifiers. A BN-neck has the statistics of its own rows."""
        pooled, silhouettes = rows["pooled"].chunk(2)
        with torch.autocast(pooled.device.type, enabled=False):
            halves = zip(MODALITIES, pooled.chunk(2), strict=True)
            z = torch.cat([self.necks[modality](half) for modality, half in halves])
            made = Embeddings(pooled, z, related_projection=self.p)
            logits = {"comprehensive": z}
            if self.p is not None:
                unit = F.normalize(self.p, dim=0)
                made.related = logits["related"] = z @ self.p
                logits["erased"] = z - (z @ unit) @ unit.T
            if self.q is not None:
                made.shape = logits["shape"] = self.necks["shape"](silhouettes) @ self.q
            made.logits = {name: self._scores(name, logits[name]) for name in sorted(self._logits)}
        return made

    @property
    def embedder(self) -> SGIELEmbedder:
        """The module of inference alone. It shares the weights of this network and is in the same mode."""
        return SGIELEmbedder(self.backbone, self.necks).train(self.training)

    def embed(
        self, images: Float[Tensor, "rows 3 height width"], modality: str, feature: str = "after_bn"
    ) -> Float[Tensor, "rows wide"]:
        """Inference, of images of one modality: Z, or with `feature="before_bn"` what the BN-neck is given.

        Raises:
            InputError: an unknown `modality` or `feature`.
            RuntimeError: the model is in training mode, where rows depend on the batch and change the statistics.
        """
        check_embed(self, modality, feature, EMBEDDED)
        pooled: Tensor = self.backbone(images, modality)
        return pooled if feature == "before_bn" else cast(Tensor, self.necks[modality](pooled))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All learnable parameters: `backbone`, and `heads` with P and Q, which learn at the full rate [lineage]."""
        backbone = list(self.backbone.parameters())
        own = {id(parameter) for parameter in backbone}
        heads = [one for one in self.parameters() if one.requires_grad and id(one) not in own]
        return {"backbone": backbone, "heads": heads, "projection": []}

    def _scores(self, name: str, feature: Tensor) -> Tensor:
        if name in ("comprehensive", "erased"):
            assert self.classifier is not None
            return cast(Tensor, self.classifier(feature))
        assert self.classifier_shape is not None
        weight = self.classifier_shape.weight
        return feature @ (weight.detach() if name == "related" else weight).T


def _projection(width: int, narrow: int, seed: int, name: str) -> nn.Parameter:
    """A (C, D) matrix, normal with std 1 / sqrt(D) [lineage]."""
    with stream(seed, name):
        return nn.Parameter(torch.randn(width, narrow) / narrow**0.5)


def _with_own_norms(module: nn.Sequential) -> nn.Sequential:
    """A copy of `module` with BatchNorms of its own; its convolutions are those of `module` itself."""
    shared = {id(one): one for one in module.modules() if isinstance(one, nn.Conv2d)}
    return copy.deepcopy(module, shared)
