"""Undoes a step whose loss or gradient is NaN or infinite, and finds the layer in which that began."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

POLICIES = ("stop", "skip")
"""The values of `on_nonfinite`."""
IN_A_ROW = 10
"""Training stops when this many steps in a row were not finite, even if they may be skipped."""


class NonFiniteError(ArithmeticError):
    """A term or the gradient is NaN or infinite. The message names it, the layer, the step and the identities."""


class Buffers:
    """The buffers of a network, which are BatchNorm's statistics, and a copy of them from before the current step."""

    def __init__(self, network: nn.Module) -> None:
        buffers = list(network.buffers())
        self._groups = [[one for one in buffers if one.dtype == dtype] for dtype in {one.dtype: 0 for one in buffers}]
        self._kept = [_flat(group) for group in self._groups]

    def settle(self, good: Tensor) -> None:
        """Keep the buffers if `good`, a boolean tensor on their device, is True; else restore them from the copy.

        Afterwards the copy is equal to the buffers.
        """
        for group, kept in zip(self._groups, self._kept, strict=True):
            torch.where(good, _flat(group), kept, out=kept)
            parts = torch.split(kept, [one.numel() for one in group])
            torch._foreach_copy_(group, [part.view(one.shape) for part, one in zip(parts, group, strict=True)])


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([one.flatten() for one in tensors])


@torch.no_grad()
def first_layer(network: nn.Module, forward: Callable[[], object]) -> str | None:
    """The name of the first layer of `network` whose output in `forward()` is not finite; None if all outputs are.

    A layer is a module without modules in it.
    """
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not found and not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if name and not [*module.children()]]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def first_gradient(network: nn.Module) -> str | None:
    """The name of the last parameter of `network` whose gradient is not finite; None if all gradients are.

    The last parameters of a network are the nearest to the loss, from which the gradient comes.
    """
    names = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    return names[-1] if names else None


def _tensors(output: object) -> Iterable[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [one for one in output if isinstance(one, Tensor)] if isinstance(output, tuple | list) else []
