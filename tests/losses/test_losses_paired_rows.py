"""`colour_free` and `dcl` against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from bdlf.losses import colour_free, consistency


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return tensor.requires_grad_()


X, Y = random(6, 5, seed=1), random(6, 5, seed=2)


@pytest.mark.parametrize("factor", [10.0, 0.5])
def test_colour_free_equals_the_loop(factor: float) -> None:
    squares = [(a - b) ** 2 for rows in zip(X.tolist(), Y.tolist(), strict=True) for a, b in zip(*rows, strict=True)]
    assert colour_free(X, Y, factor=factor).item() == pytest.approx(factor * sum(squares) / 30, rel=1e-12)
    assert colour_free(X, Y) == colour_free(X, Y, factor=10.0)


def test_consistency_equals_the_loop() -> None:
    distances = [math.dist(a, b) for a, b in zip(X.tolist(), Y.tolist(), strict=True)]
    assert consistency(X, Y).item() == pytest.approx(sum(distances) / 6, rel=1e-12)


def test_consistency_of_parts_is_the_mean_over_the_parts() -> None:
    x, y = random(6, 3, 5, seed=1), random(6, 3, 5, seed=2)
    parts = [consistency(x[:, part], y[:, part]).item() for part in range(3)]
    assert consistency(x, y).item() == pytest.approx(sum(parts) / 3, rel=1e-12)


def test_gradients_of_both_blocks() -> None:
    assert gradcheck(colour_free, (X, Y))
    assert gradcheck(consistency, (X, Y))


@pytest.mark.parametrize("loss", [colour_free, consistency])
def test_equal_rows_cost_nothing_and_have_no_gradient(loss) -> None:
    ones = torch.ones(6, 5, requires_grad=True)
    value = loss(ones, torch.ones(6, 5))
    value.backward()
    assert value.item() == 0
    assert torch.equal(ones.grad, torch.zeros(6, 5))
