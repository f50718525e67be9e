"""The network of DEEN: a two-stream ResNet with feature aggregation, and two more versions of every row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bdlf.config.schema import Deen as Options
from bdlf.methods.deen.dee import BRANCHES, DEE
from bdlf.methods.deen.mfa import MFA
from bdlf.methods.inference import check_embed, groups_of
from bdlf.networks.backbone import Backbone
from bdlf.networks.embeddings import Embeddings
from bdlf.networks.heads import bn_neck, classifier
from bdlf.networks.network import View
from bdlf.networks.streams import stream
from bdlf.networks.two_stream import TwoStream
from bdlf.system.errors import InputError, check_choice

EMBEDDED = ("after_bn",)
"""What inference can return: the pooled and the neck feature of all versions, joined."""


class Trunk(nn.Module):
    """What DEEN computes for one image: maps (3, H, W) to the pooled features of its versions, (versions, C).

    Version 0 is the image's own, the others are those of DEE. `backbone` is taken over; its weights must be loaded.

    In `options`, `stage` says after which stage of the ResNet DEE comes, 3 or 2. With 2, the last stage is left out, as
    the released code does for RegDB; then C is the width of stage 3. `expansion` and `aggregation` say whether DEE, and
    MFA after each stage up to that one, are there. `tokens` and `attention` are those of `MFA`.

    Raises:
        InputError: an unknown option.
    """

    def __init__(self, backbone: Backbone, options: Options, *, seed: int) -> None:
        super().__init__()
        check_choice("method.deen.stage", options.stage, (2, 3))
        self.stage, self.last = options.stage, options.stage + 1
        if self.last < 4:
            backbone.resnet.layer4 = nn.Identity()
        self.backbone = TwoStream(backbone)
        widths = self.backbone.widths
        self.width = widths[self.last - 1]
        lows = (backbone.resnet.layer1[0].conv1.in_channels, *widths)
        self.aggregation = nn.ModuleList(
            MFA(
                high,
                low,
                1 if k == 1 else 2,
                tokens=options.tokens,
                attention=options.attention,
                seed=seed,
                name=f"mfa{k}",
            )
            for k, (high, low) in enumerate(zip(widths[: self.stage], lows, strict=False), start=1)
            if options.aggregation
        )
        self.expansion = DEE(widths[self.stage - 1], seed=seed) if options.expansion else None
        self.versions = 1 + (BRANCHES if options.expansion else 0)

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], blocks: Sequence[str]
    ) -> Float[Tensor, "rows versions wide"]:
        """Images of equal blocks, each of the modality in `blocks`, to pooled features."""
        maps = self.backbone.stem(images, blocks)
        for stage in range(1, self.stage + 1):
            low, maps = maps, self.backbone.stages(maps, stage - 1, stage)
            if self.aggregation:
                maps = self.aggregation[stage - 1](maps, low)
        if self.expansion is not None:
            maps = self.expansion(maps)
        last = self.backbone.stages(maps, self.stage, self.last)
        pooled: Tensor = last.to(torch.promote_types(last.dtype, torch.float32)).mean((2, 3))
        return pooled.view(self.versions, len(images), self.width).movedim(0, 1)


class DEENEmbedder(nn.Module):
    """The module of inference: one vector for each image, the unit vectors of its pooled and neck features, joined."""

    def __init__(self, trunk: Trunk, neck: nn.BatchNorm1d) -> None:
        super().__init__()
        self.trunk, self.neck = trunk, neck

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], modality: str = "vis"
    ) -> Float[Tensor, "rows wide"]:
        """Float images of one modality to features (rows, 2 versions C)."""
        pooled = self.trunk(images, (modality,))
        necks = self.neck(pooled.flatten(0, 1)).view_as(pooled)
        return F.normalize(torch.stack([pooled, necks], dim=1), dim=3).flatten(1)


class DEEN(nn.Module):
    """DEEN (Zhang and Wang, CVPR 2023): two blocks of images become six blocks of features.

    The blocks are `vis`, `ir`, and those of the branches: `vis_1`, `ir_1`, `vis_2`, `ir_2`. There is one BN-neck and
    one classifier for all of them.

    - `backbone` is taken over; its weights must be loaded.
    - `features`, `logits`, `blocks`: what the objective reads.
    - `seed`: the random weights of each part depend on it and on the part alone.

    Raises:
        InputError: an unknown option, or a term that reads a block of an expansion that is left out.
    """

    views: tuple[View, ...] = (View("vis", "vis"), View("ir", "ir"))

    def __init__(
        self,
        backbone: Backbone,
        identities: int,
        *,
        features: Collection[str],
        logits: Collection[str],
        blocks: Collection[str],
        options: Options,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name in features:
            check_choice("feature", name, ("comprehensive_pooled", "comprehensive"))
        for name in logits:
            check_choice("logits", name, ("comprehensive",))
        self.trunk = Trunk(backbone, options, seed=seed)
        own = [view.name for view in self.views]
        self.blocks = (*own, *(f"{name}_{k}" for k in range(1, self.trunk.versions) for name in own))
        missing = sorted(set(blocks) - set(self.blocks))
        if missing:
            raise InputError(
                f"a loss term reads the block {missing[0]!r}, which method.deen.expansion=false leaves out; add "
                "loss/cpm=off loss/ort=off"
            )
        self.neck = bn_neck(self.trunk.width)
        self.classifier: nn.Linear | None = None
        if logits:
            with stream(seed, "classifier"):
                self.classifier = classifier(self.trunk.width, identities)

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], labels: Int[Tensor, " rows"] | None = None
    ) -> Embeddings:
        """Training: all that the objective reads, of two blocks of images."""
        return self.batch(self.rows(images), labels)

    def rows(self, images: Float[Tensor, "rows 3 height width"]) -> dict[str, Tensor]:
        """The pooled features of all versions of each image, `pooled`, (rows, versions, C)."""
        return {"pooled": self.trunk(images, [view.modality for view in self.views])}

    def batch(self, rows: Mapping[str, Tensor], labels: Int[Tensor, " rows"] | None = None) -> Embeddings:
        """BN-neck and classifier of all versions. The statistics of the BN-neck are those of all blocks."""
        pooled = rows["pooled"].movedim(1, 0).flatten(0, 1)
        with torch.autocast(pooled.device.type, enabled=False):
            feature = self.neck(pooled)
            logits = {} if self.classifier is None else {"comprehensive": self.classifier(feature)}
        return Embeddings(pooled, feature, logits=logits, blocks=self.blocks)

    @property
    def embedder(self) -> DEENEmbedder:
        """The module of inference alone. It shares the weights of this network and is in the same mode."""
        return DEENEmbedder(self.trunk, self.neck).train(self.training)

    def embed(
        self, images: Float[Tensor, "rows 3 height width"], modality: str, feature: str = "after_bn"
    ) -> Float[Tensor, "rows wide"]:
        """Inference, of images of one modality: (rows, 2 versions C), 12,288 wide with ResNet-50.

        The inner product of two such vectors is the released similarity: the sum, over the kinds of feature, of the
        cosine of equal kinds.

        Raises:
            InputError: an unknown `modality` or `feature`.
            RuntimeError: the model is in training mode, where rows depend on the batch and change the statistics.
        """
        check_embed(self, modality, feature, EMBEDDED)
        return cast(Tensor, self.embedder(images, modality))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All learnable parameters: `backbone` (with MFA and DEE, as in the released code) and `heads`."""
        return groups_of(self.trunk, (self.neck, self.classifier))
