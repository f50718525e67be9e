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

    The sum with the input is not computed here but in `InvertibleBlock`. The 3x3 convolution pads by reflection. Maps
    that are 1 high or 1 wide cannot be reflected; they are padded with copies of their border.

    `init` says where the last convolution starts. `zero` [ours]: at 0, so that a block starts as the identity.
    `default`: at PyTorch's random values.
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
        hidden = _Relu6.apply(_Pad.apply(self.expand(maps)))  # ReLU6 may follow the padding, which only copies
        out: Tensor = self.project(_Relu6.apply(self.depthwise(hidden)))
        return out


class _Relu6(torch.autograd.Function):
    """ReLU6 in place, whose gradient is computed from its output.

    This saves memory: the next convolution keeps the output anyway, while `F.relu6(maps, inplace=True)` would keep a
    copy of the input as well.
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
    """Pads maps by one position on each side: by reflection, or by copying the border if `inset` is 0.

    `F.pad` is not used, because its gradient in these modes has no deterministic form on CUDA. `torch.cat` is not used,
    because its gradient goes through the maps six times.
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
    """The affine coupling of Eq. 3 on maps (rows, C', H', W'), without the LayerNorm, and its inverse.

    Let a and b be the first and the second half of the channels. Then b' = b + F1(a), a' = a * exp(s) + F2(b'), and the
    output is cat[a', b'].

    - `scale="tanh"` [ours]: s = tanh(F3(b')), so the factor exp(s) lies in 1/e..e.
    - `scale="exp"` [paper]: s = F3(b'), which is not bounded.
    - `init` is that of `InvertedResidual`.

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
        """The input for which `forward` returns `maps`, up to rounding."""
        a, b = maps.chunk(2, dim=1)
        a = (a - self.f2(b)) * (-self.log_scale(b)).exp()
        b = b - self.f1(a)
        return torch.cat([a, b], dim=1)

    def log_scale(self, b: Float[Tensor, "rows half h w"]) -> Float[Tensor, "rows half h w"]:
        """s, the logarithm of the factor by which a is multiplied, from b'."""
        s: Tensor = self.f3(b)
        return s.tanh() if self.scale == "tanh" else s


class InvertibleChain(nn.Module):
    """K couplings, each followed by LayerNorm over the channels of every position (Eq. 3) [paper: K = 6].

    Under autocast only the convolutions are computed in half precision [ours]. With sums and LayerNorm in bfloat16, the
    norm of the gradient grew to 1e8 within some hundred steps. The couplings and the LayerNorms are kept in two lists,
    `couplings` and `norms`, because a coupling can be inverted and a LayerNorm cannot.

    - `blocks` is K.
    - `scale` and `init` are those of `InvertibleBlock`.
    - `recompute`: training keeps one map of each block and computes all others again for the gradients; see
      `recomputed`.
    - `seed`: the initial weights of a coupling depend on `seed` and on the number of the coupling alone. So a short
      chain starts like the first blocks of a long one.

    Raises:
        InputError: fewer than 1 block. `dfe=off` is the detail branch without blocks.
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
    """Attention of every row over the rows of the other modality in the batch, with a residual (Eq. 4).

    Both modalities share Wq, Wk and Wv. The output of a row depends on the other modality's rows in the batch, and so
    on the rows that show the same identity.

    - `scaled` [ours]: the logits are divided by sqrt(C'). `False`: they are not, as printed, and the softmax of
      features of unit variance is nearly one-hot.
    - `mask_own_identity` [ours]: a row does not attend to rows of its own identity. This needs the labels.
    - `zero_value` [ours]: Wv starts at 0, so the module starts as the identity.
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
        """Features (2n, C') and softmax weights (2n, n) of `pooled`, (2n, C'), whose visible rows stand first.

        The caller switches autocast off.

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
    """(2, n, n): whether row k of one modality and row l of the other show the same identity."""
    if labels is None:
        raise InputError("dfe.mask_own_identity=true needs the labels of the batch; pass them to the model")
    both = labels.reshape(2, -1)
    own: Tensor = both[:, :, None] == both.flip(0)[:, None, :]
    if own.device.type == "cpu" and own.all(dim=-1).any():  # a GPU is not waited for: there NaN follows
        raise InputError("dfe.mask_own_identity=true leaves rows with nothing to attend to; use 2 identities per batch")
    return own


class DetailExtractor(nn.Module):
    """Z^M, (2n, C', H', W'), to Z^D, (2n, C): blocks, average pooling, attention, width map, BatchNorm.

    `pool` computes the blocks and the pooling, which act on each row. Calling the module computes the rest, which needs
    the whole batch.

    The width map, linear from C' to C without bias, and the BatchNorm without shift are ours: Eqs. 13 and 14 compare
    Z^D with Zbar^D, so both need the same width, and the BatchNorm is the counterpart of the BN-neck of Z.

    Of the `options`:

    - `norm` [ours]: a BatchNorm for each modality (`per_modality`), or one for both (`shared`). If it is shared, a
      constant offset between the modalities is enough to de-correlate Z^D (Eq. 2), even where both modalities still
      show the same identities.
    - `enabled=False` [ours]: there are no blocks and no attention. This gives Z^D in those rows of Table 2 that have
      no DFE.

    The initial weights of a part depend on `seed` and on the name of the part alone.

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
        """The output of the blocks, which Figure 5 shows. Each row depends on its own image alone."""
        return intermediate if self.chain is None else self.chain(intermediate)

    def pool(self, intermediate: Float[Tensor, "rows narrow h w"]) -> Float[Tensor, "rows narrow"]:
        """The output of the blocks, averaged over its positions in float32. A row depends on its own image alone."""
        maps = self.maps(intermediate)
        with torch.autocast(maps.device.type, enabled=False):
            return maps.to(torch.promote_types(maps.dtype, torch.float32)).mean((2, 3))

    def forward(
        self, features: Float[Tensor, "rows narrow"], labels: Int[Tensor, " rows"] | None = None
    ) -> tuple[Float[Tensor, "rows wide"], Float[Tensor, "rows half"] | None]:
        """Z^D, (2n, C), and the attention, (2n, n), from what `pool` returned; computed in float32.

        The attention is None if the branch has none.
        """
        with torch.autocast(features.device.type, enabled=False):
            attention = None
            if self.attention is not None:
                features, attention = self.attention(features, labels)
            parts = self.widen(features).chunk(len(self.norms))
            detail = torch.cat([norm(part) for norm, part in zip(self.norms, parts, strict=True)])
        return detail, attention
