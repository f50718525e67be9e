"""DEEN's multistage feature aggregation (MFA): a stage's output attends to the stage's input."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bdlf.networks.nonlocal_block import zero_norm
from bdlf.networks.streams import stream
from bdlf.system.errors import InputError, check_choice

ATTENTIONS = ("released", "softmax")
"""How similarities become weights: divided by a constant as in the released code, or by a softmax as in the paper."""
TOKENS = ("pairs", "positions")
"""What attends to what in `PNL`."""


class CNL(nn.Module):
    """Channel-wise non-local block: every channel of the result is a weighted sum of the low map's channels.

    The high map h has C_h channels and is a stage's output. The low map l has C_l channels and is the input of the
    stage. With M = theta(h) phi(l)^T, summed over positions, (C_l, C_l), and y = weights(M) g(l), on the positions of
    l, the result is h + norm(out(y)). `theta`, `phi`, `g` and `out` are 1x1 convolutions with bias; those of phi and
    out have the stride `step`. `norm` is a BatchNorm whose scale and shift start at 0: a new block is the identity.
    The state dict has these five names.

    - `high` and `low`: C_h and C_l.
    - `step`: how many times the stage divides height and width, 1 or 2.
    - `attention`: `released` divides M by C_l. `softmax` [paper] is a softmax over the channels of g, without a scale.

    Raises:
        InputError: an unknown `attention`.
    """

    def __init__(self, high: int, low: int, step: int, *, attention: str = "released") -> None:
        super().__init__()
        check_choice("method.deen.attention", attention, ATTENTIONS)
        self.attention = attention
        self.theta = nn.Conv2d(high, low, 1)
        self.phi = nn.Conv2d(low, low, 1, stride=step)
        self.g = nn.Conv2d(low, low, 1)
        self.out = nn.Conv2d(low, high, 1, stride=step)
        self.norm = zero_norm(high)

    def forward(
        self, high: Float[Tensor, "rows high h w"], low: Float[Tensor, "rows low h2 w2"]
    ) -> Float[Tensor, "rows high h w"]:
        """The high map with what it takes from the low one."""
        theta, phi, g = self.theta(high).flatten(2), self.phi(low).flatten(2), self.g(low).flatten(2)
        released = self.attention == "released"
        weights = theta @ (phi.mT / phi.shape[1]) if released else (theta @ phi.mT).softmax(dim=-1)
        added: Tensor = self.norm(self.out((weights @ g).unflatten(2, low.shape[2:])))
        return high + added


class PNL(nn.Module):
    """Position-wise non-local block: every position of the high map takes a weighted sum of the low map's positions.

    With c = C_l / 2 channels in theta(h), phi(l) and g(l), and the same channels and positions grouped into tokens,
    A = theta^T phi, (tokens of h, tokens of l), and y = weights(A) g^T, the result is h + norm(out(y)). `theta`,
    `phi`, `g` and `out` are 1x1 convolutions with bias. `norm` is a BatchNorm whose scale and shift start at 0: a new
    block is the identity. The state dict has these five names.

    - `high` and `low`: C_h and C_l.
    - `tokens`: `positions` [paper] are those of the map, with c channels. `pairs` is what the released code computes by
      viewing a map (c, H W) as (2c, H W / 2): a token is a position of the upper half of the image joined with the
      position H W / 2 further on, so it has 2c channels and H W must be even.
    - `attention`: `released` divides A by the number of tokens of l. `softmax` [paper] is a softmax over the tokens of
      l, without a scale.

    Raises:
        InputError: an unknown option, or fewer than 2 channels in the low map.
    """

    def __init__(self, high: int, low: int, *, tokens: str = "pairs", attention: str = "released") -> None:
        super().__init__()
        check_choice("method.deen.tokens", tokens, TOKENS)
        check_choice("method.deen.attention", attention, ATTENTIONS)
        self.tokens, self.attention = tokens, attention
        inner = low // 2
        if inner < 1:
            raise InputError(f"PNL halves the channels of the low map, which has {low}; it needs 2 or more")
        self.theta = nn.Conv2d(high, inner, 1)
        self.phi = nn.Conv2d(low, inner, 1)
        self.g = nn.Conv2d(low, inner, 1)
        self.out = nn.Conv2d(inner, high, 1)
        self.norm = zero_norm(high)

    def forward(
        self, high: Float[Tensor, "rows high h w"], low: Float[Tensor, "rows low h2 w2"]
    ) -> Float[Tensor, "rows high h w"]:
        """The high map with what it takes from the low one.

        Raises:
            InputError: the tokens are pairs, and a map has an odd number of positions.
        """
        theta, phi, g = (self._tokens(each) for each in (self.theta(high), self.phi(low), self.g(low)))
        if self.attention == "softmax":
            y = g @ (theta.mT @ phi).softmax(dim=-1).mT
        else:
            # A g^T by way of g phi^T: the same product, without a matrix of tokens by tokens for every image.
            y = g @ (phi.mT / phi.shape[2]) @ theta
        inner = self.theta.out_channels
        added: Tensor = self.norm(self.out(y.reshape(len(y), inner, *high.shape[2:])))
        return high + added

    def _tokens(self, maps: Tensor) -> Tensor:
        """(rows, c, h, w) to (rows, width of a token, number of tokens)."""
        rows, channels, height, width = maps.shape
        if self.tokens == "positions":
            return maps.flatten(2)
        if height * width % 2:
            raise InputError(
                f"method.deen.tokens=pairs: a map of {height} x {width} positions has no two equal halves; "
                "use method.deen.tokens=positions or another image size"
            )
        return maps.reshape(rows, 2 * channels, height * width // 2)


class MFA(nn.Module):
    """Multistage feature aggregation: `CNL`, then `PNL`, both with the same low map. A new one is the identity.

    - `high`, `low` and `step`: those of `CNL`.
    - `tokens` and `attention`: those of `PNL`; `attention` is that of `CNL` too.
    - `seed` and `name`: the random weights depend on these two alone. `name` is unique within a network.

    The state dict has `cnl.` and `pnl.` before the names of the two blocks.

    Raises:
        InputError: an unknown option.
    """

    def __init__(
        self,
        high: int,
        low: int,
        step: int,
        *,
        tokens: str = "pairs",
        attention: str = "released",
        seed: int = 0,
        name: str = "mfa",
    ) -> None:
        super().__init__()
        with stream(seed, f"{name}.cnl"):
            self.cnl = CNL(high, low, step, attention=attention)
        with stream(seed, f"{name}.pnl"):
            self.pnl = PNL(high, low, tokens=tokens, attention=attention)

    def forward(
        self, high: Float[Tensor, "rows high h w"], low: Float[Tensor, "rows low h2 w2"]
    ) -> Float[Tensor, "rows high h w"]:
        """The high map, after both blocks."""
        aggregated: Tensor = self.pnl(self.cnl(high, low), low)
        return aggregated
