"""What to do about a step whose loss or gradient is NaN or infinite, and where that began."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

POLICIES = ("stop", "skip")
IN_A_ROW = 10
"""Steps that may be skipped one after the other."""


class NonFiniteError(ArithmeticError):
    """A term or the gradient is NaN or infinite; the message names it, where it began, the step and the identities."""


class Buffers:
    """The buffers of a network (BatchNorm's statistics), which a forward pass changes, as they were before it."""

    def __init__(self, network: nn.Module) -> None:
        self._buffers = list(network.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        """Take what they are now."""
        torch._foreach_copy_(self._kept, self._buffers)

    def restore(self) -> None:
        """Give back what was kept."""
        torch._foreach_copy_(self._buffers, self._kept)


@torch.no_grad()
def first_layer(network: nn.Module, forward: Callable[[], object]) -> str | None:
    """Name of the first innermost module of `network` whose output in `forward()` is not finite; None if all are."""
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
    """Name of the parameter nearest to the loss (the last of `network`) whose gradient is not finite."""
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
