"""Inputs of half precision, autocast and float64, for every loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bdlf import losses
from bdlf.losses.precision import widen

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Few channels and small values: neither the softmax of `fkl` nor the hinge of `tri` may be flat here.
A, B, C, D, E, G = (0.4 * random(6, 8, seed=k) + 0.3 * random(6, 8, seed=9) for k in range(6))
CALLS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "identity": (lambda x: losses.identity(x, LABELS), (A,)),
    "part_identity": (lambda x: losses.part_identity(x, LABELS), (0.4 * random(6, 2, 8, seed=11),)),
    "triplet": (lambda x: losses.triplet(x, LABELS, margin=2.0), (A,)),
    "triplet by name": (lambda x: losses.triplet(features=x, labels=LABELS, margin=2.0), (A,)),
    "distillation": (losses.distillation, (A, B)),
    "mutual_distillation": (losses.mutual_distillation, (A, B)),
    "fused_distillation": (losses.fused_distillation, (A, B, C)),
    "feature_relation": (losses.feature_relation, (A, B)),
    "feature_relation raw": (lambda x, y: losses.feature_relation(x, y, form="raw"), (A, B)),
    "correlation": (losses.correlation, (A, B)),
    "detail_correlation": (losses.detail_correlation, (A, B, C, D)),
    "orthogonality": (losses.orthogonality, (random(8, 8, seed=5) / 3,)),
    "specific_shared": (losses.specific_shared, (A, B, C, D)),
    "specific_shared_from_correlations": (
        losses.specific_shared_from_correlations,
        (torch.tensor(0.63).double(), torch.tensor(0.27).double()),
    ),
    "weighted_triplet": (lambda x: losses.weighted_triplet(x, LABELS), (A,)),
    "weighted_triplet released": (lambda x: losses.weighted_triplet(x, LABELS, form="released"), (A,)),
    "squared_difference": (lambda x: losses.squared_difference(x, LABELS), (A,)),
    "dual_triplet": (lambda *x: losses.dual_triplet(*x, LABELS, margin=2.0), (A, B, C)),
    "middle_triplet": (lambda *x: losses.middle_triplet(*x, LABELS, margin=2.0), (A, B, C, D)),
    "colour_free": (losses.colour_free, (A, B)),
    "consistency": (losses.consistency, (A, B)),
    "centre_pair_mining": (lambda *x: losses.centre_pair_mining(*x, LABELS, margin=2.0), (A, B, C, D, E, G)),
    "branch_orthogonality": (losses.branch_orthogonality, (A, B, C, D)),
    "related": (losses.related, (A, B, C, D)),
    "erased_distillation": (lambda *x: losses.erased_distillation(*x, LABELS), (A, B, C, D)),
    "column_orthogonality": (losses.column_orthogonality, (random(8, 3, seed=5) / 3,)),
}
every_loss = pytest.mark.parametrize(("loss", "inputs"), CALLS.values(), ids=CALLS)


def test_every_public_loss_is_called_here() -> None:
    assert set(losses.__all__) == {name.split()[0] for name in CALLS}


@every_loss
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_inputs_are_computed_in_float32(
    loss: Callable[..., Tensor], inputs: tuple[Tensor, ...], half: torch.dtype, autocast: bool
) -> None:
    rounded = [each.to(half).requires_grad_() for each in inputs]
    reference = [each.detach().float().requires_grad_() for each in rounded]
    expected = loss(*reference)
    expected.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = loss(*rounded)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == expected.item()
    for got, wanted in zip(rounded, reference, strict=True):
        assert (got.grad is None) == (wanted.grad is None)
        if wanted.grad is not None:
            # One rounding of the gradient per use of the input.
            torch.testing.assert_close(
                got.grad.float(), wanted.grad, rtol=2e-2, atol=2e-2 * wanted.grad.abs().max().item()
            )


@every_loss
def test_float32_under_autocast_stays_float32(loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    single = [each.float() for each in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*single)
    assert value.item() == loss(*single).item()


@every_loss
def test_float64_stays_float64(loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    value = loss(*inputs)
    single = loss(*(each.float() for each in inputs)).item()
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(single, rel=1e-4)
    assert value.item() != single


def test_widen_leaves_integers_alone() -> None:
    assert widen(LABELS) is LABELS
