"""Computes losses in float32 or float64, whatever precision the network uses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def widen(tensor: Tensor) -> Tensor:
    """`tensor` in float32 if it is float16 or bfloat16; every other type is returned unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Decorator: `loss` gets widened tensors and runs without autocast, which would compute products in 16 bits."""

    @functools.wraps(loss)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        wide = [widen(value) if isinstance(value, Tensor) else value for value in args]
        wide_named = {name: widen(value) if isinstance(value, Tensor) else value for name, value in kwargs.items()}
        device = next(value.device.type for value in (*wide, *wide_named.values()) if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*wide, **wide_named)  # type: ignore[arg-type]

    return computed
