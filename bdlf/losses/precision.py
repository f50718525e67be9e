"""Losses are computed in float32 or better, whatever precision the network ran in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def widen(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32, float64 and integers stay as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Decorator: `loss` sees widened tensors and runs without autocast, which would narrow matrix products again."""

    @functools.wraps(loss)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        wide = [widen(value) if isinstance(value, Tensor) else value for value in args]
        wide_named = {name: widen(value) if isinstance(value, Tensor) else value for name, value in kwargs.items()}
        device = next(value.device.type for value in (*wide, *wide_named.values()) if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*wide, **wide_named)  # type: ignore[arg-type]

    return computed
