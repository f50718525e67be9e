"""Detail Feature Extraction: invertible blocks (Eq. 3), then attention between the modalities (Eqs. 4, 5)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bdlf.config.schema import Dfe
from bdlf.methods.bdlf.recompute import over_channels, recomputed
from bdlf.networks.heads import bn_neck
from bdlf.networks.streams import stream
from bdlf.system.errors import InputError, check_choice


class InvertedResidual(nn.Module):
    """F_i of Eq. 3 [lineage, CDDFuse]: 1x1 (expand 2) - ReLU6 - 3x3 depthwise - ReLU6 - 1x1, no bias, no BatchNorm.

    The residual is the coupling's. Reflect padding; replicate where the map is less than 2 high or wide, which
    reflection cannot pad.
    `init`: the last convolution starts at `zero` [ours: each block starts as the identity] or at PyTorch's `default`.
    """

    def __init__(self, channels: int, *, init: str = "zero") -> None:
        super().__init__()
        check_choice("dfe.init", init, ("zero", "default"))
        hidden = 2 * channels
        self.expand = nn.Conv2d(channels, hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, groups=hidden, bias=False)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)
        if init == "zero":
            nn.init.zeros_(self.project.weight)

    def forward(self, maps: Float[Tensor, "rows channels h w"]) -> Float[Tensor, "rows channels h w"]:
        hidden = _Relu6.apply(_Pad.apply(self.expand(maps)))  # padding copies, so it may come first
        out: Tensor = self.project(_Relu6.apply(self.depthwise(hidden)))
        return out


class _Relu6(torch.autograd.Function):
    """ReLU6 in place, differentiated from its output, which the next convolution keeps anyway.

    `F.relu6(maps, inplace=True)` keeps a copy of its input.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.mark_dirty(maps)
        out = F.relu6(maps, inplace=True)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        found: Tensor = torch.ops.aten.hardtanh_backward(gradient, out, 0.0, 6.0)
        return found


class _Pad(torch.autograd.Function):
    """One more position on each side, by reflection, or by replication where `inset` is 0.

    Not `F.pad`: its gradient on CUDA has no deterministic form in these modes. Not `torch.cat`, whose gradient goes
    through the maps six times.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        rows, channels, height, width = maps.shape
        ctx.inset = inset = 1 if min(height, width) >= 2 else 0
        channels_last = maps.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if channels_last else torch.contiguous_format
        out = torch.empty(
            (rows, channels, height + 2, width + 2), dtype=maps.dtype, device=maps.device, memory_format=order
        )
        inner = out[:, :, :, 1:-1]
        inner[:, :, 1:-1] = maps
        inner[:, :, 0], inner[:, :, -1] = maps[:, :, inset], maps[:, :, -1 - inset]
        out[..., 0], out[..., -1] = inner[..., inset], inner[..., -1 - inset]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        inner = gradient[:, :, :, 1:-1].clone(memory_format=torch.preserve_format)
        inner[..., ctx.inset] += gradient[..., 0]
        inner[..., -1 - ctx.inset] += gradient[..., -1]
        maps = inner[:, :, 1:-1]
        maps[:, :, ctx.inset] += inner[:, :, 0]
        maps[:, :, -1 - ctx.inset] += inner[:, :, -1]
        return maps


class InvertibleBlock(nn.Module):
    """Affine coupling of Eq. 3 on (rows, C', H', W'), without its LayerNorm, and its exact inverse.

    With a and b the first and second half of the channels: b' = b + F1(a), a' = a * exp(s) + F2(b'), out = cat[a', b'].
    `scale`: s = tanh(F3(b')) [ours: bounded, a factor in 1/e..e] for `tanh`, s = F3(b') [paper, unbounded] for `exp`.
    `init` is that of `InvertedResidual`.

    Raises:
        InputError: an odd number of channels, or an unknown option.
    """

    def __init__(self, width: int, *, scale: str = "tanh", init: str = "zero") -> None:
        super().__init__()
        check_choice("dfe.scale", scale, ("tanh", "exp"))
        if width % 2:
            raise InputError(f"an invertible block halves its channels: {width} is odd; use an even width")
        self.scale = scale
        self.f1, self.f2, self.f3 = (InvertedResidual(width // 2, init=init) for _ in range(3))

    def forward(self, maps: Float[Tensor, "rows narrow h w"]) -> Float[Tensor, "rows narrow h w"]:
        a, b = maps.chunk(2, dim=1)
        b = b + self.f1(a)
        a = a * self.log_scale(b).exp() + self.f2(b)
        return torch.cat([a, b], dim=1)

    def inverse(self, maps: Float[Tensor, "rows narrow h w"]) -> Float[Tensor, "rows narrow h w"]:
        """The input whose `forward` is `maps`, up to rounding."""
        a, b = maps.chunk(2, dim=1)
        a = (a - self.f2(b)) * (-self.log_scale(b)).exp()
        b = b - self.f1(a)
        return torch.cat([a, b], dim=1)

    def log_scale(self, b: Float[Tensor, "rows half h w"]) -> Float[Tensor, "rows half h w"]:
        """s, of b'."""
        s: Tensor = self.f3(b)
        return s.tanh() if self.scale == "tanh" else s


class InvertibleChain(nn.Module):
    """K couplings, each followed by LayerNorm over the channels of every position (Eq. 3) [paper: K = 6].

    `couplings` and `norms` are apart: the couplings alone can be inverted, LayerNorm cannot.
    Under autocast the convolutions alone are in half precision: with sums and LayerNorm in bfloat16 the gradient's norm
    grew to 1e8 within some hundred steps.
    `recompute`: training keeps one map of each block and computes all others again for the gradients; see `recomputed`.
    `seed`: the random weights of a coupling depend on it and on the coupling's number alone, so a short chain starts as
    the first blocks of a long one.

    Raises:
        InputError: fewer than 1 block (`dfe=off` is the detail branch without blocks).
    """

    def __init__(
        self,
        width: int,
        *,
        blocks: int = 6,
        scale: str = "tanh",
        init: str = "zero",
        recompute: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise InputError(f"dfe.blocks={blocks}: at least 1 is needed; dfe=off leaves the blocks out")
        self.couplings = nn.ModuleList()
        for k in range(blocks):
            with stream(seed, f"coupling{k}"):
                self.couplings.append(InvertibleBlock(width, scale=scale, init=init))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.recompute = recompute

    def forward(self, maps: Float[Tensor, "rows narrow h w"]) -> Float[Tensor, "rows narrow h w"]:
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        if self.recompute and self.training and torch.is_grad_enabled():
            return recomputed(maps, self.couplings, self.norms)
        for coupling, norm in zip(self.couplings, self.norms, strict=True):
            maps = over_channels(norm, coupling(maps))
        return maps


class CrossAttention(nn.Module):
    """Attention of each modality over the other's rows in the batch, with shared Wq, Wk, Wv and a residual (Eq. 4).

    A row's output therefore depends on the batch, among it the rows of its own identity in the other modality.

    - `scaled` [ours]: logits / sqrt(C'). `False`: as printed, nearly one-hot at unit variance.
    - `mask_own_identity` [ours]: a row does not attend to its own identity; needs the labels.
    - `zero_value` [ours]: Wv starts at 0, the module as the identity.
    """

    def __init__(
        self, width: int, *, scaled: bool = True, mask_own_identity: bool = False, zero_value: bool = False
    ) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.factor = width**-0.5 if scaled else 1.0
        self.mask_own_identity = mask_own_identity
        if zero_value:
            nn.init.zeros_(self.value.weight)

    def forward(
        self, pooled: Float[Tensor, "rows narrow"], labels: Int[Tensor, " rows"] | None = None
    ) -> tuple[Float[Tensor, "rows narrow"], Float[Tensor, "rows half"]]:
        """Features (2n, C') and softmax weights (2n, n) of (2n, C'), visible rows first. Call with autocast off.

        Raises:
            InputError: own identities are masked, and `labels` are missing or name a single identity.
        """
        both = pooled.reshape(2, -1, pooled.shape[-1])  # (2, n, C')
        other = both.flip(0)
        logits = self.query(both) @ self.key(other).mT * self.factor  # (2, n, n)
        if self.mask_own_identity:
            logits = logits.masked_fill(_own_identity(labels), -torch.inf)
        attention = logits.softmax(dim=-1)
        out = attention @ self.value(other) + both
        return out.flatten(0, 1), attention.flatten(0, 1)


def _own_identity(labels: Tensor | None) -> Tensor:
    """(2, n, n): is row k of one modality the identity of row l of the other?"""
    if labels is None:
        raise InputError("dfe.mask_own_identity=true needs the labels of the batch; pass them to the model")
    both = labels.reshape(2, -1)
    own: Tensor = both[:, :, None] == both.flip(0)[:, None, :]
    if own.device.type == "cpu" and own.all(dim=-1).any():  # a device is not waited for: NaN there
        raise InputError("dfe.mask_own_identity=true leaves rows with nothing to attend to; use 2 identities per batch")
    return own


class DetailExtractor(nn.Module):
    """Z^M, (2n, C', H', W'), to Z^D, (2n, C): blocks, average pooling, attention, width map, BatchNorm.

    `pool` does the first two, which act on each row; calling the module does the others, which need the whole batch.


    - The width map C' -> C, linear without bias, and the BatchNorm without shift [ours]: Eqs. 13 and 14 compare Z^D
      with Zbar^D, so the widths must agree; the BatchNorm is the counterpart of Z's BN-neck.
    - `norm` [ours]: one BatchNorm `per_modality`, or one `shared`, under which a constant offset between the modalities
      is enough to de-correlate Z^D (Eq. 2), whatever identities the two still share.
    - `enabled=False` [ours]: pooling, width map and BatchNorm alone, Z^D of the rows of Table 2 without DFE.
    - `seed`: the random weights of a part depend on it and on the name of the part alone.

    Raises:
        InputError: an odd C', fewer than 1 block, or an unknown option.
    """

    def __init__(self, width: int, out_width: int, options: Dfe, *, seed: int = 0) -> None:
        super().__init__()
        check_choice("dfe.norm", options.norm, ("per_modality", "shared"))
        self.chain: InvertibleChain | None = None
        self.attention: CrossAttention | None = None
        if options.enabled:
            self.chain = InvertibleChain(
                width,
                blocks=options.blocks,
                scale=options.scale,
                init=options.init,
                recompute=options.recompute,
                seed=seed,
            )
            with stream(seed, "attention"):
                self.attention = CrossAttention(
                    width,
                    scaled=options.attention_scaled,
                    mask_own_identity=options.mask_own_identity,
                    zero_value=options.attention_zero_value,
                )
        with stream(seed, "widen"):
            self.widen = nn.Linear(width, out_width, bias=False)
        self.norms = nn.ModuleList(bn_neck(out_width) for _ in range(1 if options.norm == "shared" else 2))

    def maps(self, intermediate: Float[Tensor, "rows narrow h w"]) -> Float[Tensor, "rows narrow h w"]:
        """The blocks' output before pooling and attention, row by row: what Figure 5 shows."""
        return intermediate if self.chain is None else self.chain(intermediate)

    def pool(self, intermediate: Float[Tensor, "rows narrow h w"]) -> Float[Tensor, "rows narrow"]:
        """The averages of the blocks' output over its positions, in float32, row by row."""
        maps = self.maps(intermediate)
        with torch.autocast(maps.device.type, enabled=False):
            return maps.to(torch.promote_types(maps.dtype, torch.float32)).mean((2, 3))

    def forward(
        self, features: Float[Tensor, "rows narrow"], labels: Int[Tensor, " rows"] | None = None
    ) -> tuple[Float[Tensor, "rows wide"], Float[Tensor, "rows half"] | None]:
        """Z^D, (2n, C), and the attention, (2n, n), or None where there is none, of what `pool` gives; in float32."""
        with torch.autocast(features.device.type, enabled=False):
            attention = None
            if self.attention is not None:
                features, attention = self.attention(features, labels)
            parts = self.widen(features).chunk(len(self.norms))
            detail = torch.cat([norm(part) for norm, part in zip(self.norms, parts, strict=True)])
        return detail, attention
