"""BN-neck, classifier and the module of inference, as the field uses them since BagTricks [lineage]."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bdlf.networks.backbone import Backbone


def bn_neck(width: int) -> nn.BatchNorm1d:
    """BatchNorm1d over (rows, width) whose shift is fixed at 0."""
    neck = nn.BatchNorm1d(width)
    neck.bias.requires_grad_(False)
    return neck


def classifier(width: int, identities: int) -> nn.Linear:
    """Linear map (rows, width) to (rows, identities) without bias, weights normal with std 0.001."""
    linear = nn.Linear(width, identities, bias=False)
    nn.init.normal_(linear.weight, std=0.001)
    return linear


class Embedder(nn.Module):
    """The module of inference, backbone and BN-neck: float images (rows, 3, H, W) to Z of Eq. 1, (rows, C)."""

    def __init__(self, backbone: Backbone, neck: nn.BatchNorm1d) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, images: Float[Tensor, "rows 3 height width"]) -> Float[Tensor, "rows wide"]:
        embedded: Tensor = self.neck(self.backbone(images))
        return embedded
