"""MMN (Zhang et al., ACM MM 2021): a generated middle image beside each image, and features of horizontal stripes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bdlf.config.schema import Mmn as Options
from bdlf.datasets.description import MODALITIES
from bdlf.methods.inference import check_embed, groups_of
from bdlf.networks.backbone import Backbone
from bdlf.networks.embeddings import Embeddings
from bdlf.networks.heads import bn_neck, classifier
from bdlf.networks.network import View
from bdlf.networks.streams import stream
from bdlf.networks.two_stream import TwoStream
from bdlf.system.errors import InputError, check_choice

EMBEDDED = ("after_bn", "without_middle")
"""What inference can return: the feature of the image plus that of its middle image, or the image's alone."""
MAPPED = 256
"""D, the width of the map e of the term `dcl`."""


class MiddleImages(nn.Module):
    """Generates the middle image of a normalised image: t = BN(ReLU(b(ReLU(a(x))))), and then ReLU(c(t)).

    a (3 -> 1), b (1 -> 1) and the BatchNorm belong to one modality, c (1 -> 3) is shared. All are 1x1 convolutions with
    bias. Weights start at 0.333, biases at 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.ModuleDict(
            {
                modality: nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.ReLU(), nn.BatchNorm2d(1))
                for modality in MODALITIES
            }
        )
        self.shared = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.constant_(module.weight, 0.333)
                nn.init.zeros_(cast(Tensor, module.bias))

    def forward(self, images: Float[Tensor, "rows 3 height width"], modality: str) -> Float[Tensor, "rows 3 h w"]:
        return cast(Tensor, self.shared(self.own[modality](images)))


class Trunk(nn.Module):
    """What MMN computes for one image: (3, H, W) to the pooled stripes of it and its middle image, (2, parts, C).

    `backbone` is taken over; its weights must be loaded. A middle image passes the stem of its own modality, in one
    batch with the images. The last stride is 1, and the pooling is the average, whatever `backbone` says [lineage].
    """

    def __init__(self, backbone: Backbone, parts: int, *, seed: int) -> None:
        super().__init__()
        self.parts = parts
        backbone.keep_last_map_large()
        self.backbone = TwoStream(backbone)
        with stream(seed, "middle"):
            self.middle = MiddleImages()

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], blocks: Sequence[str]
    ) -> Float[Tensor, "rows 2 parts wide"]:
        """Images of equal blocks, each of the modality in `blocks`.

        Raises:
            InputError: the height of the last map cannot be divided by the number of stripes.
        """
        middle = [self.middle(own, name) for own, name in zip(images.chunk(len(blocks)), blocks, strict=True)]
        both = torch.cat([images, *middle])
        maps = self.backbone.fore(both, 4, (*blocks, *blocks))
        height = maps.shape[2]
        if height % self.parts:
            raise InputError(
                f"method.mmn.parts={self.parts}: the last map has {height} rows, which {self.parts} stripes cannot "
                "share equally; change image.height or method.mmn.parts"
            )
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        rows, channels, _, width = maps.shape
        stripes = maps.reshape(rows, channels, self.parts, height // self.parts, width).mean((3, 4)).mT
        return stripes.reshape(2, len(images), self.parts, channels).movedim(0, 1)


class MMNEmbedder(nn.Module):
    """The module of inference: one vector for each image, f + f_M.

    f is the unit vector of the joined neck features of all stripes, f_M that of the middle image. With `middle` off,
    the vector is f.
    """

    def __init__(self, trunk: Trunk, necks: nn.ModuleList, *, middle: bool = True) -> None:
        super().__init__()
        self.trunk, self.necks, self.middle = trunk, necks, middle

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], modality: str = "vis"
    ) -> Float[Tensor, "rows wide"]:
        """Float images of one modality to features (rows, parts C)."""
        stripes = self.trunk(images, (modality,))
        joined = _through(self.necks, stripes.flatten(0, 1)).reshape(len(images), 2, -1)
        units = F.normalize(joined, dim=2)
        return units.sum(dim=1) if self.middle else units[:, 0]


class MMN(nn.Module):
    """MMN: two blocks of images become the blocks `vis`, `vis_middle`, `ir` and `ir_middle`.

    Each of the `parts` stripes has its own BN-neck and its own classifier. The map e of the term `dcl`, which all
    stripes share, is e(x) = unit(BN(L2(ReLU(BN(L1(unit(x))))))) with D = 256. It is built only if that term is on.

    - `backbone` is taken over; its weights must be loaded.
    - `features`, `logits`: what the objective reads.
    - `options.learned_map`: `False` leaves e at its random weights, because no optimiser of the released code has
      them. It normalises by the statistics of the batch in both cases.
    - `seed`: the random weights of each part depend on it and on the part alone.

    Raises:
        InputError: an unknown option.
    """

    views: tuple[View, ...] = (View("vis", "vis"), View("ir", "ir"))
    blocks = ("vis", "vis_middle", "ir", "ir_middle")

    def __init__(
        self,
        backbone: Backbone,
        identities: int,
        *,
        features: Collection[str],
        logits: Collection[str],
        options: Options,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name in features:
            check_choice("feature", name, ("parts", "parts_mapped"))
        for name in logits:
            check_choice("logits", name, ("parts",))
        if options.parts < 1:
            raise InputError(f"method.mmn.parts={options.parts}: give a number from 1")
        self.trunk = Trunk(backbone, options.parts, seed=seed)
        width = backbone.width
        self.necks = nn.ModuleList(bn_neck(width) for _ in range(options.parts))
        self.classifiers = nn.ModuleList()
        for k in range(options.parts if logits else 0):
            with stream(seed, f"classifier.{k}"):
                self.classifiers.append(classifier(width, identities))
        self.map: nn.Sequential | None = None
        if "parts_mapped" in features:
            with stream(seed, "map"):
                self.map = nn.Sequential(
                    nn.Linear(width, MAPPED, bias=False),
                    nn.BatchNorm1d(MAPPED),
                    nn.ReLU(),
                    nn.Linear(MAPPED, MAPPED),
                    nn.BatchNorm1d(MAPPED),
                )
            self.map.requires_grad_(options.learned_map)

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], labels: Int[Tensor, " rows"] | None = None
    ) -> Embeddings:
        """Training: all that the objective reads, of two blocks of images."""
        return self.batch(self.rows(images), labels)

    def rows(self, images: Float[Tensor, "rows 3 height width"]) -> dict[str, Tensor]:
        """The pooled stripes of each image and of its middle image, `parts`, (rows, 2, parts, C)."""
        return {"parts": self.trunk(images, [view.modality for view in self.views])}

    def batch(self, rows: Mapping[str, Tensor], labels: Int[Tensor, " rows"] | None = None) -> Embeddings:
        """BN-necks, classifiers and the map e. The statistics of a BN-neck are those of all blocks of its stripe."""
        stripes = rows["parts"]
        parts = torch.cat([half[:, k] for half in stripes.chunk(len(self.views)) for k in range(2)])
        with torch.autocast(parts.device.type, enabled=False):
            features = _through(self.necks, parts)
            logits = {"parts": _through(self.classifiers, features)} if self.classifiers else {}
            mapped = None if self.map is None else self._mapped(self.map, parts)
        return Embeddings(
            parts.flatten(1), features.flatten(1), parts=parts, parts_mapped=mapped, logits=logits, blocks=self.blocks
        )

    @property
    def embedder(self) -> MMNEmbedder:
        """The module of inference alone. It shares the weights of this network and is in the same mode."""
        return MMNEmbedder(self.trunk, self.necks).train(self.training)

    def embed(
        self, images: Float[Tensor, "rows 3 height width"], modality: str, feature: str = "after_bn"
    ) -> Float[Tensor, "rows wide"]:
        """Inference, of images of one modality: (rows, parts C), 8,192 wide with ResNet-50.

        `feature` is `after_bn` for f + f_M of `MMNEmbedder`, or `without_middle` for f. The released code prints
        several similarities and does not say which one was reported. The inner product of f + f_M is the sum of all
        four of its products; comparing by the cosine also divides by the lengths [ours].

        Raises:
            InputError: an unknown `modality` or `feature`.
            RuntimeError: the model is in training mode, where rows depend on the batch and change the statistics.
        """
        check_embed(self, modality, feature, EMBEDDED)
        return cast(Tensor, MMNEmbedder(self.trunk, self.necks, middle=feature == "after_bn").eval()(images, modality))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All learnable parameters: `backbone` (with what makes the middle images), and `heads`."""
        return groups_of(self.trunk, (self.necks, self.classifiers, self.map))

    def _mapped(self, e: nn.Sequential, parts: Float[Tensor, "rows parts wide"]) -> Float[Tensor, "rows parts narrow"]:
        """e of the middle images' stripes. Those of both modalities pass as one batch for each stripe."""
        _, visible, _, infrared = parts.chunk(len(self.blocks))
        middle = F.normalize(torch.cat([visible, infrared]), dim=2)
        mapped = F.normalize(torch.stack([e(middle[:, k]) for k in range(middle.shape[1])], dim=1), dim=2)
        visible, infrared = mapped.chunk(2)
        return torch.cat([torch.zeros_like(visible), visible, torch.zeros_like(infrared), infrared])


def _through(modules: nn.ModuleList, parts: Float[Tensor, "rows parts wide"]) -> Tensor:
    """Each part through its own module."""
    return torch.stack([module(parts[:, k]) for k, module in enumerate(modules)], dim=1)
