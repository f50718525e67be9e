"""Pearson correlation of paired rows and `dcorr`, against loops."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch.autograd import grad, gradcheck

from bdlf.losses import correlation, detail_correlation


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    return statistics.fmean(statistics.correlation(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True))


# Offsets and scales per row: covariance, cosine and a correlation of the flattened tensors all differ from Corr.
SHARED = random(3, 6, seed=11)
ZV, ZI, PV, PI = (
    (SHARED + random(3, 6, seed=k)) * torch.tensor([[0.5], [2.0], [9.0]]).roll(k, 0) + k for k in range(4)
)
PI = -PI  # anti-correlated with its detail feature, so `clamp` makes a difference


def slow_dcorr(gamma: float, clamp: bool) -> float:
    across = slow_correlation(PV, PI) - slow_correlation(ZV, ZI)
    within = [slow_correlation(PV, ZV), slow_correlation(PI, ZI)]
    if clamp:
        within = [max(0.0, value) for value in within]
    return across**2 / (within[0] ** 2 + within[1] ** 2 + gamma)


def test_correlation_equals_the_loop() -> None:
    assert correlation(ZV, ZI).item() == pytest.approx(slow_correlation(ZV, ZI), rel=1e-12)
    assert gradcheck(correlation, (ZV.clone().requires_grad_(), ZI.clone().requires_grad_()))


def test_correlation_reaches_its_ends_and_does_not_pass_them() -> None:
    for seed in range(20):
        x = random(4, 300, seed=seed).float()
        assert 1 - 1e-6 < correlation(x, 3 * x + 2).item() <= 1
        assert -1 <= correlation(x, 1 - x).item() < -1 + 1e-6


@pytest.mark.parametrize("width", [7, 512, 2048])
@pytest.mark.parametrize("value", [0.0, 3.3, -5.7, 1000 / 3])
def test_constant_rows_correlate_zero(width: int, value: float) -> None:
    """Rounding leaves a constant residue, which would correlate 1 with another constant row."""
    constant = torch.full((4, width), value, requires_grad=True)
    for other in (torch.full((4, width), 2.7), random(4, width).float(), constant):
        loss = correlation(constant, other)
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert grad(loss, constant)[0].isfinite().all()


def test_a_constant_row_counts_as_zero_in_the_mean() -> None:
    x = ZV.clone()
    x[2] = 1.5
    rest = [0, 1]
    assert correlation(x, ZI).item() == pytest.approx(slow_correlation(ZV[rest], ZI[rest]) * 2 / 3, rel=1e-12)


@pytest.mark.parametrize("gamma", [1.01, 0.2])
@pytest.mark.parametrize("clamp", [False, True])
def test_detail_correlation_equals_the_loop(gamma: float, clamp: bool) -> None:
    assert slow_correlation(PI, ZI) < -0.1 < 0.1 < slow_correlation(PV, ZV)
    loss = detail_correlation(PV, PI, ZV, ZI, gamma=gamma, clamp=clamp)
    assert loss.item() == pytest.approx(slow_dcorr(gamma, clamp), rel=1e-12)


@pytest.mark.parametrize("clamp", [False, True])
def test_detail_correlation_gradient(clamp: bool) -> None:
    inputs = tuple(tensor.clone().requires_grad_() for tensor in (PV, PI, ZV, ZI))
    assert gradcheck(lambda *x: detail_correlation(*x, clamp=clamp, detach=False), inputs)
    assert gradcheck(lambda x, y: detail_correlation(x, y, ZV, ZI, clamp=clamp), inputs[:2])
    detached = grad(detail_correlation(*inputs), inputs, allow_unused=True)
    assert [gradient is None for gradient in detached] == [False, False, True, True]


def test_detail_correlation_of_all_equal_rows_is_zero() -> None:
    ones = torch.ones(4, 9, requires_grad=True)
    loss = detail_correlation(ones, ones, ones, ones)
    assert math.isclose(loss.item(), 0)
    assert grad(loss, ones)[0].isfinite().all()
