"""The non-local block of AGW, CAJ and LUPI, and its places in a ResNet."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bdlf.networks.backbone import Backbone
from bdlf.networks.streams import stream
from bdlf.system.errors import InputError, check_choice

PLACES = {2: 2, 3: 3}
"""How many of the last residual blocks of each stage a non-local block follows [lineage]. Other stages have none."""


class NonLocal(nn.Module):
    """Adds to each position of a map a weighted sum over all positions of that map (AGW). A new block is the identity.

    With N positions, A = theta(x)^T phi(x) / N and y = A g(x), the result is x + norm(out(y)). There is no softmax.
    `theta`, `phi`, `g` and `out` are 1x1 convolutions with bias. `norm` is a BatchNorm whose scale and shift start at
    0. The state dict has these five names.

    - `channels`: C of the maps.
    - `width`: the number of channels of theta, phi and g. `released` is 1: the released code divides a number by
      itself. `half` is C / 2, which that code's option promises, and at least 1.

    Raises:
        InputError: an unknown `width`.
    """

    def __init__(self, channels: int, *, width: str = "released") -> None:
        super().__init__()
        check_choice("method.two_stream.nonlocal_width", width, ("released", "half"))
        inner = 1 if width == "released" else max(1, channels // 2)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = zero_norm(channels)

    def forward(self, maps: Float[Tensor, "rows channels h w"]) -> Float[Tensor, "rows channels h w"]:
        theta, phi, g = (each(maps).flatten(2) for each in (self.theta, self.phi, self.g))  # (rows, inner, N)
        # A g as (g phi^T / N) theta: the same product, without the N x N matrix A of every image.
        y = g @ (phi.mT / phi.shape[2]) @ theta
        added: Tensor = self.norm(self.out(y.unflatten(2, maps.shape[2:])))
        return maps + added


def zero_norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm2d over (rows, `channels`, h, w) whose scale and shift start at 0, so that it returns 0 at start."""
    norm = nn.BatchNorm2d(channels)
    nn.init.zeros_(norm.weight)  # the shift is 0 anyway
    return norm


def insert_nonlocal(backbone: Backbone, *, width: str = "released", seed: int = 0) -> None:
    """Put a `NonLocal` behind the last two residual blocks of stage 2 and the last three of stage 3 of `backbone`.

    In ResNet-50 these are blocks 3 and 4 of 4, and blocks 4, 5 and 6 of 6 [lineage]. A stage of a smaller ResNet that
    has fewer blocks gets one behind each [ours]. Call this after the weights are loaded, and before `TwoStream` copies
    private stages. In the state dict, `resnet.layer2.3` becomes `resnet.layer2.3.0`, and the non-local block is
    `resnet.layer2.3.1`. Its random weights depend on `seed` and its place alone. `width` is that of `NonLocal`.

    Raises:
        InputError: an unknown `width`, or a backbone that has non-local blocks already.
    """
    if any(isinstance(module, NonLocal) for module in backbone.modules()):
        raise InputError("this backbone has non-local blocks already; insert them once")
    for stage, count in PLACES.items():
        layer: nn.Sequential = getattr(backbone.resnet, f"layer{stage}")
        for k in range(max(0, len(layer) - count), len(layer)):
            with stream(seed, f"nonlocal.layer{stage}.{k}"):
                layer[k] = nn.Sequential(layer[k], NonLocal(backbone.widths[stage - 1], width=width))
