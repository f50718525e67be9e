"""The chain of invertible blocks, which computes its activations again instead of keeping them.

The chain is Eq. 3; the idea is RevNet's (Gomez et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def recomputed(
    maps: Float[Tensor, "rows narrow h w"], couplings: nn.ModuleList, norms: nn.ModuleList
) -> Float[Tensor, "rows narrow h w"]:
    """The output of the plain chain, bit for bit, and its gradients up to rounding, with less memory.

    The forward pass keeps only the output of each coupling. The backward pass recovers the input of the coupling from
    that output. For this it evaluates F1, F2 and F3 once more, and the same evaluations give their gradients. The
    activations of only one of them are in memory at a time.

    LayerNorm could be inverted too, from its mean and standard deviation, and nothing would have to be kept. But the
    inversion divides rounding errors by LayerNorm's weights, in every block. With weights drawn from N(0, 0.3), the
    gradients of six blocks were wrong by a factor of 1e18.
    """
    blocks = list(zip(couplings, norms, strict=True))
    return _Chain.apply(maps, blocks, *_parameters(blocks))  # type: ignore[no-any-return]


def _parameters(blocks: Sequence[tuple[nn.Module, nn.Module]]) -> list[nn.Parameter]:
    return [parameter for block in blocks for module in block for parameter in module.parameters()]


class _Chain(torch.autograd.Function):
    """Takes maps, the blocks as pairs of an `InvertibleBlock` and its LayerNorm, and the parameters of all blocks.

    The parameters are arguments so that autograd asks for their gradients.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, blocks: list[tuple[Any, Any]], *parameters: Tensor) -> Tensor:
        device = maps.device.type
        ctx.blocks = blocks
        # Autocast's cache is off: it would give `backward` the weights that are cast here, which have no graph.
        ctx.autocast = partial(
            torch.autocast,
            device,
            dtype=torch.get_autocast_dtype(device),
            enabled=torch.is_autocast_enabled(device),
            cache_enabled=False,
        )
        kept = []
        with ctx.autocast():
            for coupling, norm in blocks:
                kept.append(coupling(maps))
                maps = over_channels(norm, kept[-1])
        ctx.save_for_backward(*kept, *parameters)  # the parameters, so that autograd notices a change of one of them
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors[: len(ctx.blocks)]
        found: dict[nn.Parameter, Tensor] = {}
        with ctx.autocast():
            for coupled, (coupling, norm) in reversed(list(zip(kept, ctx.blocks, strict=True))):
                _, back = _evaluate(partial(over_channels, norm), norm, coupled, found)
                gradient = _through_coupling(coupled, back(gradient), coupling, found)
        return gradient, None, *(found.get(parameter) for parameter in _parameters(ctx.blocks))


def over_channels(norm: nn.Module, maps: Float[Tensor, "rows narrow h w"]) -> Float[Tensor, "rows narrow h w"]:
    """LayerNorm over the channels at every position."""
    out: Tensor = norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return out


def _through_coupling(coupled: Tensor, gradient: Tensor, coupling: Any, found: dict[nn.Parameter, Tensor]) -> Tensor:
    """The gradient of a coupling's input, from the coupling's output `coupled` and the `gradient` of that output.

    The gradients of the coupling's parameters are added to `found`.
    """
    moved, b = coupled.chunk(2, dim=1)  # a', b'
    gradient_a, gradient_b = gradient.chunk(2, dim=1)

    shift, back = _evaluate(coupling.f2, coupling.f2, b, found)
    gradient_b = gradient_b + back(gradient_a)
    moved = moved - shift  # a exp(s)
    s, back = _evaluate(coupling.log_scale, coupling.f3, b, found)
    gradient_b = gradient_b + back(gradient_a * moved)
    scale = s.exp()  # `moved` is divided by it, because multiplying with exp(-s) would round once more

    _, back = _evaluate(coupling.f1, coupling.f1, moved / scale, found)  # moved / scale is a; b is not needed
    return torch.cat([gradient_a * scale + back(gradient_b), gradient_b], dim=1)


def _evaluate(
    function: Callable[[Tensor], Tensor], module: nn.Module, maps: Tensor, found: dict[nn.Parameter, Tensor]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`function(maps)`, and a function that turns the gradient of this value into the gradient of `maps`.

    That function also adds the gradients of the parameters of `module` to `found`.
    """
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    maps = maps.detach().requires_grad_()
    with torch.enable_grad():
        out = function(maps)

    def back(gradient: Tensor) -> Tensor:
        first, *others = torch.autograd.grad(out, [maps, *learnt], gradient)
        found.update(zip(learnt, others, strict=True))
        return first

    return out.detach(), back
