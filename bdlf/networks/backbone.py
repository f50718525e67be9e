"""The single-stream ResNet that both modalities share, split after one of its stages (Eq. 1)."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from bdlf.networks.streams import stream
from bdlf.networks.weights import imagenet_file, load_weights
from bdlf.system.errors import InputError, check_choice

ARCHITECTURES: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet10": (BasicBlock, [1, 1, 1, 1]),
}
"""The type of block and the number of blocks per stage. ResNet-10 is ours, for CPUs; the others are torchvision's."""
STAGES = (1, 2, 3, 4)
SMALLEST = 1e-6
"""GeM raises activations to at least this value, so that its gradient is finite where an activation is 0."""


class Backbone(nn.Module):
    """torchvision's ResNet without its classifier: images (rows, 3, H, W) to pooled features (rows, C).

    - `name` [paper: resnet50]: one of `ARCHITECTURES`.
    - `weights` [paper: ImageNet]: `imagenet`, `none` (random), or a file whose tensors have torchvision's names.
    - `last_stride` [lineage: 1]: the stride of stage 4. 2 is torchvision's; 1 doubles the height and width of the last
      map.
    - `pooling` [lineage: gem]: `gem`, the generalised mean `mean(x^p)^(1/p)` over the positions, or `avg`.
    - `gem_p`: p of the generalised mean, in 1..6 [lineage: 3, fixed as in CAJ, DEEN and SGIEL; others learn it].
    - `seed`: random weights depend on `seed` alone.

    Raises:
        InputError: an unknown option, or weights that cannot be had.
    """

    width: int
    """C, the number of channels of the output."""
    widths: tuple[int, ...]
    """C', the number of channels after each of the stages 1..4."""

    def __init__(
        self,
        name: str = "resnet50",
        *,
        weights: str | Path = "none",
        last_stride: int = 1,
        pooling: str = "gem",
        gem_p: float = 3.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("backbone.name", name, ARCHITECTURES)
        check_choice("backbone.last_stride", last_stride, (1, 2))
        check_choice("backbone.pooling", pooling, ("gem", "avg"))
        if not 1 <= gem_p <= 6:  # beyond 6 the power of SMALLEST is 0 in float32
            raise InputError(f"gem_p={gem_p} of the pooling is not in 1..6")
        block, layers = ARCHITECTURES[name]
        with stream(seed, "backbone"):
            self.resnet = ResNet(block, layers)
        del self.resnet.avgpool, self.resnet.fc
        self.widths = tuple(planes * block.expansion for planes in (64, 128, 256, 512))
        self.width = self.widths[-1]
        self.pooling = pooling
        self.gem_p = gem_p
        if last_stride == 1:
            self.keep_last_map_large()
        if weights != "none":
            load_weights(self.resnet, name, imagenet_file(name) if weights == "imagenet" else weights)

    def keep_last_map_large(self) -> None:
        """Set the stride of stage 4 to 1."""
        first = self.resnet.layer4[0]
        strided = first.conv2 if isinstance(first, Bottleneck) else first.conv1
        strided.stride = first.downsample[0].stride = (1, 1)

    def fore(self, images: Float[Tensor, "rows 3 height width"], stage: int) -> Float[Tensor, "rows narrow h w"]:
        """E^fore of Eq. 1: stem and stages 1..`stage`. Returns Z^M, (rows, C', H', W')."""
        check_choice("dfe.stage", stage, STAGES)
        net = self.resnet
        maps: Tensor = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        for layer in self._layers()[:stage]:
            maps = layer(maps)
        return maps

    def rear(self, intermediate: Float[Tensor, "rows narrow h w"], stage: int) -> Float[Tensor, "rows wide h2 w2"]:
        """E^rear of Eq. 1: the stages after `stage`, none for 4. Returns the last map, (rows, C, h, w)."""
        check_choice("dfe.stage", stage, STAGES)
        for layer in self._layers()[stage:]:
            intermediate = layer(intermediate)
        return intermediate

    def pool(self, maps: Float[Tensor, "rows wide h w"]) -> Float[Tensor, "rows wide"]:
        """Pooled features (rows, C), computed in float32 or better."""
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        if self.pooling == "avg":
            return maps.mean((2, 3))
        return maps.clamp(min=SMALLEST).pow(self.gem_p).mean((2, 3)).pow(1 / self.gem_p)

    def forward(self, images: Float[Tensor, "rows 3 height width"]) -> Float[Tensor, "rows wide"]:
        """Images to pooled features: everything that inference evaluates before the BN-neck."""
        return self.pool(self.rear(self.fore(images, 4), 4))

    def _layers(self) -> tuple[nn.Module, ...]:
        return self.resnet.layer1, self.resnet.layer2, self.resnet.layer3, self.resnet.layer4
