"""No term makes the host wait for a GPU: each runs on tensors without values, where reading a value is an error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bdlf import losses

ROWS, WIDTH = 4, 3
# The number of tensors of ROWS x WIDTH, whether labels follow them, and the forms.
CALLS: dict[str, tuple[int, bool, tuple[str, ...]]] = {
    "branch_orthogonality": (4, False, ()),
    "centre_pair_mining": (6, True, ("released", "paper")),
    "colour_free": (2, False, ()),
    "column_orthogonality": (1, False, ()),
    "consistency": (2, False, ()),
    "dual_triplet": (3, True, ()),
    "erased_distillation": (4, True, ()),
    "identity": (1, True, ()),
    "middle_triplet": (4, True, ()),
    "related": (4, False, ()),
    "squared_difference": (1, True, ("softmax", "released")),
    "triplet": (1, True, ()),
    "weighted_triplet": (1, True, ("softmax", "released")),
}


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name, call in CALLS.items() for form in call[2] or (None,)]
)
def test_values_are_never_read(name: str, form: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # not on such tensors
    loss: Callable[..., Tensor] = getattr(losses, name)
    tensors, labelled, _ = CALLS[name]
    inputs = [torch.empty(ROWS, WIDTH, device="meta", requires_grad=True) for _ in range(tensors)]
    labels = [torch.empty(ROWS, dtype=torch.long, device="meta")] if labelled else []
    value = loss(*inputs, *labels, **({"form": form} if form else {}))
    value.backward()
    assert value.is_meta and value.shape == ()
