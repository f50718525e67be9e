"""AGW, CAJ and LUPI: one network, a two-stream ResNet with non-local blocks, GeM, a BN-neck and one classifier.

The three differ in the views that train the network, in where its private part ends, and in their terms.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bdlf.config.schema import TwoStream as Options
from bdlf.methods.inference import check_embed, groups_of
from bdlf.networks.backbone import Backbone
from bdlf.networks.embeddings import Embeddings
from bdlf.networks.heads import bn_neck, classifier
from bdlf.networks.network import View
from bdlf.networks.nonlocal_block import insert_nonlocal
from bdlf.networks.streams import stream
from bdlf.networks.two_stream import STEMS, TwoStream
from bdlf.system.errors import check_choice

EMBEDDED = ("after_bn", "before_bn")
"""What inference can return: the feature after the BN-neck, or before it."""
VIEWS: dict[str, tuple[View, ...]] = {
    "agw": (View("vis", "vis"), View("ir", "ir")),
    "caj": (View("vis", "vis"), View("exchanged", "vis", recolour="always"), View("ir", "ir", recolour="adaptive")),
    "lupi": (View("vis", "vis"), View("ir", "ir"), View("intermediate", "vis", recolour="mix")),
}
"""The blocks of each method's batches, in the order of the rows."""
PRIVATE_STAGES = {"agw": 0, "caj": 0, "lupi": 1}
"""How many stages of the ResNet, besides the first convolution, exist once for each stem."""


class StreamEmbedder(nn.Module):
    """The module of inference: the stem of one modality, the shared stages, and the BN-neck."""

    def __init__(self, backbone: TwoStream, neck: nn.BatchNorm1d) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], modality: str = "vis"
    ) -> Float[Tensor, "rows wide"]:
        """Float images of one modality, `vis` or `ir`, to features (rows, C)."""
        embedded: Tensor = self.neck(self.backbone(images, (modality,)))
        return embedded


class TwoStreamNetwork(nn.Module):
    """The network of AGW, CAJ and LUPI. It builds what `logits` names.

    - `backbone`: with its private stems and its non-local blocks.
    - `identities`: the number of classes.
    - `views`: the blocks of a batch. A view named like a stem of the backbone passes that stem, any other view the stem
      of its modality.
    - `logits`: features whose class scores the objective reads: `comprehensive` or none.
    - `seed`: the random weights of the classifier depend on it alone.

    Raises:
        InputError: an unknown name.
    """

    def __init__(
        self,
        backbone: TwoStream,
        identities: int,
        *,
        views: tuple[View, ...],
        features: Collection[str],
        logits: Collection[str],
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name in features:
            check_choice("feature", name, ("comprehensive_pooled", "comprehensive"))
        for name in logits:
            check_choice("logits", name, ("comprehensive",))
        self.views = views
        self.backbone = backbone
        self.neck = bn_neck(backbone.width)
        self._stems = tuple(view.name if view.name in backbone.stems else view.modality for view in views)
        self.classifier: nn.Linear | None = None
        if logits:
            with stream(seed, "classifier"):
                self.classifier = classifier(backbone.width, identities)

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], labels: Int[Tensor, " rows"] | None = None
    ) -> Embeddings:
        """Training: all that the objective reads, of k blocks of images in the order of `views`."""
        return self.batch(self.rows(images), labels)

    def rows(self, images: Float[Tensor, "rows 3 height width"]) -> dict[str, Tensor]:
        """The pooled output of the backbone, `pooled`, (rows, C). The images are k equal blocks."""
        return {"pooled": self.backbone(images, self._stems)}

    def batch(self, rows: Mapping[str, Tensor], labels: Int[Tensor, " rows"] | None = None) -> Embeddings:
        """BN-neck and classifier, from what `rows` returned. The statistics of the BN-neck are those of all blocks."""
        pooled = rows["pooled"]
        with torch.autocast(pooled.device.type, enabled=False):
            feature = self.neck(pooled)
            logits = {} if self.classifier is None else {"comprehensive": self.classifier(feature)}
        return Embeddings(pooled, feature, logits=logits, blocks=tuple(view.name for view in self.views))

    @property
    def embedder(self) -> StreamEmbedder:
        """The module of inference alone. It shares the weights of this network and is in the same mode."""
        return StreamEmbedder(self.backbone, self.neck).train(self.training)

    def embed(
        self, images: Float[Tensor, "rows 3 height width"], modality: str, feature: str = "after_bn"
    ) -> Float[Tensor, "rows wide"]:
        """Inference, of images of one modality in any order: its stem, the shared stages, and the BN-neck.

        `feature` is `after_bn`, or `before_bn` for what the BN-neck is given. The features are not normalised.

        Raises:
            InputError: an unknown `modality` or `feature`.
            RuntimeError: the model is in training mode, where rows depend on the batch and change the statistics.
        """
        check_embed(self, modality, feature, EMBEDDED)
        pooled: Tensor = self.backbone(images, (modality,))
        if feature == "before_bn":
            return pooled
        embedded: Tensor = self.neck(pooled)
        return embedded

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All learnable parameters: `backbone` (stems, stages and non-local blocks), and `heads`; no `projection`.

        The non-local blocks are new, but learn at the backbone's rate [lineage].
        """
        return groups_of(self.backbone, (self.neck, self.classifier))


def build(
    method: str,
    backbone: Backbone,
    identities: int,
    *,
    features: Collection[str],
    logits: Collection[str],
    options: Options,
    seed: int,
) -> TwoStreamNetwork:
    """The network of `method`, a key of `VIEWS`, from a backbone whose weights are loaded.

    Raises InputError for an unknown name or option.
    """
    check_choice("method.name", method, VIEWS)
    views = VIEWS[method]
    insert_nonlocal(backbone, width=options.nonlocal_width, seed=seed)
    stems = 1 + max(STEMS.index(name) for view in views for name in (view.name, view.modality) if name in STEMS)
    streams = TwoStream(backbone, stems=stems, private_stages=PRIVATE_STAGES[method], stem_relu=options.stem_relu)
    return TwoStreamNetwork(streams, identities, views=views, features=features, logits=logits, seed=seed)
