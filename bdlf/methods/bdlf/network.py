"""The network of BDLF: backbone, detail branch, base branch and heads, which together give `Embeddings` (Figure 2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bdlf.config.schema import Beg, Dfe
from bdlf.methods.bdlf.beg import Fusion, Projection
from bdlf.methods.bdlf.dfe import DetailExtractor
from bdlf.methods.inference import check_embed
from bdlf.networks.backbone import STAGES, Backbone
from bdlf.networks.embeddings import Embeddings
from bdlf.networks.heads import Embedder, bn_neck, classifier
from bdlf.networks.network import View
from bdlf.networks.streams import stream
from bdlf.system.errors import InputError, check_choice

SHARED = ("comprehensive", "base", "fused")
"""Features that CLS_B classifies [paper]."""
DETAILED = ("detail", "detail_projected")
"""Features that CLS_D classifies [paper]."""
EMBEDDED = ("after_bn", "before_bn")
"""The features that inference can return: Z, or the input of the BN-neck."""
FEATURES = ("comprehensive_pooled", *SHARED, *DETAILED, "projection")
"""Fields of `Embeddings` that an objective can ask for. The first two are always built."""


class BDLF(nn.Module):
    """The Base-Detail Feature Learning network. Only the parts that `features` and `logits` need are built.

    - `features`: the fields of `Embeddings` that the objective reads, out of `FEATURES`.
    - `logits`: the features whose class scores the objective reads, out of `SHARED` and `DETAILED`.
    - `dfe` and `beg`: the options of the two branches. The detail branch takes the output of stage `dfe.stage` of the
      backbone, 1..4 [paper: 3].
    - `seed`: the initial weights of a part depend on `seed` and on the name of the part alone. The weights of
      `backbone` stay as they are.

    Raises:
        InputError: an unknown name or option.
    """

    views: tuple[View, ...] = (View("vis", "vis", recolour="exchange"), View("ir", "ir"))

    def __init__(
        self,
        backbone: Backbone,
        identities: int,
        *,
        features: Collection[str],
        logits: Collection[str],
        dfe: Dfe | None = None,
        beg: Beg | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        dfe = dfe or Dfe()
        beg = beg or Beg()
        check_choice("dfe.stage", dfe.stage, STAGES)
        for name in features:
            check_choice("feature", name, FEATURES)
        for name in logits:
            check_choice("logits", name, SHARED + DETAILED)
        width = backbone.width
        needed = {*features, *logits}
        self.stage = dfe.stage
        self.logits = tuple(name for name in SHARED + DETAILED if name in logits)
        self.backbone = backbone
        self.neck = bn_neck(width)
        self.detail: DetailExtractor | None = None
        self.projection: Projection | None = None
        self.fusion: Fusion | None = None
        self.classifier: nn.Linear | None = None
        self.classifier_detail: nn.Linear | None = None
        if "detail" in needed:
            self.detail = DetailExtractor(backbone.widths[dfe.stage - 1], width, dfe, seed=seed)
        if needed & {"detail_projected", "base", "fused", "projection"}:
            with stream(seed, "projection"):
                self.projection = Projection(width, form=beg.projection, init=beg.init)
        if "fused" in needed:
            self.fusion = Fusion(width, scaled=beg.fusion_scaled, zero_value=beg.fusion_zero_value, seed=seed)
        if not set(SHARED).isdisjoint(logits):
            with stream(seed, "classifier"):
                self.classifier = classifier(width, identities)
        if not set(DETAILED).isdisjoint(logits):
            with stream(seed, "classifier_detail"):
                self.classifier_detail = classifier(width, identities)

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], labels: Int[Tensor, " rows"] | None = None
    ) -> Embeddings:
        """All that the objective reads in training, of 2n images: n visible ones, then n infrared ones.

        Under autocast the maps are computed in half precision, and everything after their pooling in float32. Only
        `dfe.mask_own_identity` needs `labels`, (2n,).

        Raises:
            InputError: an odd number of images.
        """
        return self.batch(self.rows(images), labels)

    def rows(self, images: Float[Tensor, "rows 3 height width"]) -> dict[str, Tensor]:
        """What each image gives on its own: the pooled outputs of the backbone and of the invertible blocks.

        Returns `pooled`, (rows, C), and `detail`, (rows, C'), if the network has a detail branch.
        """
        intermediate = self.backbone.fore(images, self.stage)
        pooled = {"pooled": self.backbone.pool(self.backbone.rear(intermediate, self.stage))}
        if self.detail is not None:
            pooled["detail"] = self.detail.pool(intermediate)
        return pooled

    def batch(self, rows: Mapping[str, Tensor], labels: Int[Tensor, " rows"] | None = None) -> Embeddings:
        """What needs the whole batch: attention, necks, P, fusion and heads, from what `rows` returned for 2n images.

        Raises:
            InputError: an odd number of rows.
        """
        pooled = rows["pooled"]
        if len(pooled) % 2:
            raise InputError(f"a batch of {len(pooled)} images cannot be half visible and half infrared")
        features = {"comprehensive_pooled": pooled}
        if self.detail is not None:
            features["detail"], attention = self.detail(rows["detail"], labels)
            if attention is not None:
                features["attention"] = attention
        with torch.autocast(pooled.device.type, enabled=False):
            Z = features["comprehensive"] = self.neck(pooled)
            if self.projection is not None:
                P = features["projection"] = self.projection()
                features["detail_projected"] = Z @ P
                features["base"] = Z - features["detail_projected"]
            if self.fusion is not None:
                features["fused"] = self.fusion(features["base"])
            logits = {name: self._classifier_of(name)(features[name]) for name in self.logits}
        return Embeddings(**features, logits=logits, blocks=tuple(view.name for view in self.views))

    @property
    def embedder(self) -> Embedder:
        """The module of inference. It shares the weights of this network, and is in the same mode as the network."""
        return Embedder(self.backbone, self.neck).train(self.training)

    def embed(
        self, images: Float[Tensor, "rows 3 height width"], modality: str, feature: str = "after_bn"
    ) -> Float[Tensor, "rows wide"]:
        """The features (rows, C) that inference compares, of images of one modality. They are not normalised.

        Only the backbone and the BN-neck are evaluated. `modality` is `vis` or `ir`; BDLF treats both alike. `feature`
        is `after_bn`, which is Z of Eq. 1, or `before_bn`, the input of the BN-neck. The caller calls `eval()` before.

        Raises:
            InputError: an unknown `modality` or `feature`.
            RuntimeError: the network is in training mode, in which a feature depends on the batch and every call
                changes the statistics of BatchNorm.
        """
        check_embed(self, modality, feature, EMBEDDED)
        module = self.backbone if feature == "before_bn" else self.embedder
        embedded: Tensor = module(images)
        return embedded

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The learnable parameters, by the groups of the optimiser.

        - "backbone": those of the ResNet.
        - "projection": P and the matrices of the fusion. There may be none.
        - "heads": all others, which are those of the BN-neck, the detail branch and the classifiers.
        """
        groups: dict[str, list[nn.Parameter]] = {"backbone": [], "heads": [], "projection": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                part = name.partition(".")[0]
                group = {"backbone": "backbone", "projection": "projection", "fusion": "projection"}.get(part, "heads")
                groups[group].append(parameter)
        return groups

    def _classifier_of(self, name: str) -> nn.Module:
        head = self.classifier if name in SHARED else self.classifier_detail
        assert head is not None  # `__init__` builds the classifiers of all names in `logits`
        return head
