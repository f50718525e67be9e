"""`orth` against loops over the matrix."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import grad, gradcheck

from bdlf.losses import orthogonality


def random(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_orthogonality(matrix: torch.Tensor) -> float:
    p = matrix.tolist()
    indices = range(len(p))
    idempotence = sum((sum(p[i][k] * p[k][j] for k in indices) - p[i][j]) ** 2 for i in indices for j in indices)
    symmetry = sum((p[j][i] - p[i][j]) ** 2 for i in indices for j in indices)
    return (idempotence + symmetry) / len(p)


def test_orthogonality_equals_the_loop() -> None:
    assert orthogonality(random(5)).item() == pytest.approx(slow_orthogonality(random(5)), rel=1e-12)
    assert gradcheck(orthogonality, random(5).requires_grad_())


def test_an_orthogonal_projector_costs_nothing_and_an_oblique_or_symmetric_one_does() -> None:
    basis = torch.linalg.qr(random(6)).Q[:, :3]
    projector = (basis @ basis.T).requires_grad_()
    loss = orthogonality(projector)
    assert loss.item() == pytest.approx(0, abs=1e-28)
    assert grad(loss, projector)[0].abs().max() < 1e-14
    mixed = random(6, seed=1)
    oblique = mixed @ torch.diag(torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)) @ mixed.inverse()
    symmetric = random(6) + random(6).T
    assert min(orthogonality(oblique).item(), orthogonality(symmetric).item()) > 0.1


def test_equal_entries() -> None:
    """All entries of P are 1, so PP = C P and the term is (C - 1)^2 C^2 / C."""
    assert orthogonality(torch.ones(7, 7)).item() == pytest.approx(36 * 7)


def test_float32_holds_at_full_width() -> None:
    matrix = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)) / 32
    assert orthogonality(matrix).item() == pytest.approx(orthogonality(matrix.double()).item(), rel=1e-6)
