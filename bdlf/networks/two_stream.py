"""The two-stream ResNet of the lineage: the first layers once for each modality, all others shared."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bdlf.networks.backbone import STAGES, Backbone
from bdlf.system.errors import InputError, check_choice

STEMS = ("vis", "ir", "intermediate")
"""Names of the private stems, in order: the two modalities, and LUPI's intermediate domain."""


class TwoStream(nn.Module):
    """A `Backbone` whose first layers exist once for each modality, all with the same weights before the first step.

    The weights of `backbone` must be loaded, and its non-local blocks inserted, before it is given to this class. The
    class takes it over: the private layers move from the backbone into copies, and an identity takes the place of each.
    Afterwards only this class can compute with the backbone.

    - `stems`: how many copies there are, the first so many of `STEMS`. With 1 nothing is copied: every image passes the
      whole backbone, whose initial weights and results are those of `Backbone`.
    - `private_stages`: how many stages belong to the private part, 0, 1 (LUPI) or 2, besides the first convolution,
      its BatchNorm, ReLU and max-pool.
    - `stem_relu`: `False` leaves out the ReLU between the first BatchNorm and the max-pool, as LUPI's released code
      does.

    Names in the state dict: `shared.resnet.layer3.0.conv1.weight`, `stems.ir.conv1.weight`, `stems.ir.layer1.0...`.
    The names behind `shared.` and behind `stems.ir.` are those of torchvision.

    A batch has k blocks of n rows, as `Embeddings` describes. `blocks` names the stem of each block, so names repeat
    where several blocks are of one modality. All rows of a stem pass it as one batch, and all rows of all blocks pass
    the shared part as one batch. The statistics of every BatchNorm are therefore those of all rows that pass it.

    Raises:
        InputError: an unknown number of stems or private stages.
    """

    def __init__(self, backbone: Backbone, *, stems: int = 2, private_stages: int = 0, stem_relu: bool = True) -> None:
        super().__init__()
        check_choice("stems", stems, range(1, len(STEMS) + 1))
        check_choice("private_stages", private_stages, (0, 1, 2))
        self.private_stages = private_stages
        self.shared = backbone
        resnet = backbone.resnet
        if not stem_relu:
            resnet.relu = nn.Identity()
        self.stems = nn.ModuleDict()
        if stems > 1:
            names = ("conv1", "bn1", "relu", "maxpool", *(f"layer{stage}" for stage in STAGES[:private_stages]))
            private = nn.Sequential(OrderedDict((name, getattr(resnet, name)) for name in names))
            self.stems.update({stem: copy.deepcopy(private) for stem in STEMS[:stems]})
            for name in names:
                setattr(resnet, name, nn.Identity())

    @property
    def width(self) -> int:
        """C, channels of the output."""
        return self.shared.width

    @property
    def widths(self) -> tuple[int, ...]:
        """C' after stages 1..4."""
        return self.shared.widths

    def forward(
        self, images: Float[Tensor, "rows 3 height width"], blocks: Sequence[str]
    ) -> Float[Tensor, "rows wide"]:
        """Images of equal blocks to pooled features. Inference names one block: `blocks=("ir",)`."""
        return self.pool(self.rear(self.fore(images, 4, blocks), 4))

    def fore(
        self, images: Float[Tensor, "rows 3 height width"], stage: int, blocks: Sequence[str]
    ) -> Float[Tensor, "rows narrow h w"]:
        """The maps (rows, C', H', W') after `stage`, in the order of the images.

        Raises:
            InputError: as `stem` and `stages`.
        """
        return self.stages(self.stem(images, blocks), self.private_stages, stage)

    def stem(
        self, images: Float[Tensor, "rows 3 height width"], blocks: Sequence[str]
    ) -> Float[Tensor, "rows narrow h w"]:
        """The private part: maps after max-pool, or after the last private stage.

        Raises:
            InputError: an unknown stem in `blocks`, or a number of rows that k blocks cannot share equally.
        """
        for name in blocks:
            check_choice("stem", name, list(self.stems) or STEMS)
        if not blocks or len(images) % len(blocks):
            raise InputError(f"a batch of {len(images)} images is not {len(blocks)} equal blocks")
        if not self.stems:
            net = self.shared.resnet
            return self._through(net.maxpool(net.relu(net.bn1(net.conv1(images)))), 0, self.private_stages)
        parts = images.chunk(len(blocks))
        maps: dict[int, Tensor] = {}
        for name in dict.fromkeys(blocks):
            own = [k for k, each in enumerate(blocks) if each == name]
            passed: Tensor = self.stems[name](torch.cat([parts[k] for k in own]))
            maps.update(zip(own, passed.chunk(len(own)), strict=True))
        return torch.cat([maps[k] for k in range(len(blocks))])

    def stages(
        self, maps: Float[Tensor, "rows narrow h w"], after: int, upto: int
    ) -> Float[Tensor, "rows wider h2 w2"]:
        """The stages behind stage `after` up to and with stage `upto`, none if both are equal.

        `maps` are the output of stage `after`, which is 0 for that of the max-pool.

        Raises:
            InputError: a stage that does not exist, or a private one that is not the last private one.
        """
        check_choice("stage", after, range(self.private_stages, STAGES[-1] + 1))
        check_choice("stage", upto, range(after, STAGES[-1] + 1))
        return self._through(maps, after, upto)

    def rear(self, intermediate: Float[Tensor, "rows narrow h w"], stage: int) -> Float[Tensor, "rows wide h2 w2"]:
        """The stages after `stage`, none for 4. Returns the last map, (rows, C, h, w)."""
        return self.stages(intermediate, stage, STAGES[-1])

    def pool(self, maps: Float[Tensor, "rows wide h w"]) -> Float[Tensor, "rows wide"]:
        """Pooled features (rows, C), computed in float32 or better."""
        return self.shared.pool(maps)

    def _through(self, maps: Tensor, after: int, upto: int) -> Tensor:
        net = self.shared.resnet
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4)[after:upto]:
            maps = layer(maps)
        return maps
