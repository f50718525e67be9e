"""`related`, `kl_erased` and `ortho` against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad, gradcheck

from bdlf.losses import column_orthogonality, distillation, erased_distillation, mutual_distillation, related

LABELS = torch.tensor([3, 1, 3, 0, 1, 3])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return tensor.requires_grad_()


# The lengths of the body-shape features differ, so that the inner product is least similar elsewhere than the cosine.
SHAPE_V = random(6, 4, seed=1) * torch.tensor([[1.0], [5.0], [0.2], [3.0], [1.0], [9.0]])
SHAPE_I = random(6, 4, seed=2) * torch.tensor([[0.1], [1.0], [4.0], [2.0], [7.0], [1.0]])
LOGITS_V, LOGITS_I = random(6, 5, seed=3), random(6, 5, seed=4)


def slow_ce(student: list[float], target: list[float]) -> float:
    def log_softmax(row: list[float]) -> list[float]:
        return [value - math.log(sum(map(math.exp, row))) for value in row]

    return -sum(math.exp(t) * s for t, s in zip(log_softmax(target), log_softmax(student), strict=True))


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def least_similar(shapes: torch.Tensor, others: torch.Tensor) -> list[int]:
    rows, candidates = shapes.tolist(), others.tolist()
    return [
        min((j for j in range(6) if LABELS[j] == LABELS[i]), key=lambda j, row=row: cosine(row, candidates[j]))
        for i, row in enumerate(rows)
    ]


def test_erased_distillation_equals_the_loop() -> None:
    visible, infrared = LOGITS_V.tolist(), LOGITS_I.tolist()
    of_visible, of_infrared = least_similar(SHAPE_V, SHAPE_I), least_similar(SHAPE_I, SHAPE_V)
    assert of_visible != of_infrared and list(range(6)) not in (of_visible, of_infrared)
    total = 0.0
    for k in range(6):
        total += slow_ce(visible[k], infrared[k]) + slow_ce(infrared[k], visible[k])
        total += slow_ce(visible[k], infrared[of_visible[k]]) + slow_ce(infrared[k], visible[of_infrared[k]])
    value = erased_distillation(SHAPE_V, SHAPE_I, LOGITS_V, LOGITS_I, LABELS)
    assert value.item() == pytest.approx(total / 6, rel=1e-12)
    exchanged = erased_distillation(SHAPE_I, SHAPE_V, LOGITS_I, LOGITS_V, LABELS)
    assert exchanged.item() == pytest.approx(value.item(), rel=1e-12)


def test_erased_distillation_teaches_each_row_twice_and_no_target() -> None:
    inputs = (SHAPE_V, SHAPE_I, LOGITS_V, LOGITS_I)
    gradients = grad(erased_distillation(*inputs, LABELS), inputs, allow_unused=True)
    assert gradients[0] is None and gradients[1] is None
    visible, infrared = LOGITS_V.detach().softmax(1), LOGITS_I.detach().softmax(1)
    torch.testing.assert_close(gradients[2], (2 * visible - infrared - infrared[least_similar(SHAPE_V, SHAPE_I)]) / 6)
    torch.testing.assert_close(gradients[3], (2 * infrared - visible - visible[least_similar(SHAPE_I, SHAPE_V)]) / 6)


def test_erased_distillation_of_one_row_per_identity_is_twice_the_mutual_one() -> None:
    value = erased_distillation(SHAPE_V, SHAPE_I, LOGITS_V, LOGITS_I, torch.arange(6))
    assert value.item() == pytest.approx(2 * mutual_distillation(LOGITS_V, LOGITS_I).item(), rel=1e-12)


def test_erased_distillation_needs_no_second_identity() -> None:
    value = erased_distillation(SHAPE_V, SHAPE_I, LOGITS_V, LOGITS_I, torch.full((6,), 5))
    assert value.isfinite()


def test_related_equals_the_loop() -> None:
    features, shape, logits, shape_logits = random(6, 4), SHAPE_V, LOGITS_V, LOGITS_I
    squares = [
        (a - b) ** 2 for rows in zip(features.tolist(), shape.tolist(), strict=True) for a, b in zip(*rows, strict=True)
    ]
    entropies = [slow_ce(a, b) for a, b in zip(logits.tolist(), shape_logits.tolist(), strict=True)]
    value = related(features, shape, logits, shape_logits)
    assert value.item() == pytest.approx(sum(squares) / 24 + sum(entropies) / 6, rel=1e-12)


def test_related_does_not_teach_the_teacher() -> None:
    inputs = (random(6, 4), random(6, 4, seed=5), LOGITS_V, LOGITS_I)
    features, shape, logits, shape_logits = inputs
    gradients = grad(related(*inputs), inputs, allow_unused=True)
    assert [each is None for each in gradients] == [False, True, False, True]
    torch.testing.assert_close(gradients[2], grad(distillation(logits, shape_logits), logits)[0])
    assert gradcheck(lambda x, y: related(x, shape, y, shape_logits), (features, logits))


def test_column_orthogonality_equals_the_loop() -> None:
    projection = random(6, 3) * torch.tensor([0.1, 1.0, 20.0])
    columns = projection.T.tolist()
    expected = sum(abs(cosine(columns[i], columns[j])) for i in range(3) for j in range(3) if i != j) / 3
    assert column_orthogonality(projection).item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(column_orthogonality, random(6, 3))


def test_orthogonal_columns_of_any_length_cost_nothing() -> None:
    basis = torch.linalg.qr(random(6, 3)).Q * torch.tensor([0.1, 1.0, 20.0])
    assert column_orthogonality(basis).item() == pytest.approx(0, abs=1e-14)


def test_equal_and_zero_columns_are_finite() -> None:
    """Equal columns have cosine 1 with every other; a column of zeros has not even 1 with itself."""
    for projection, expected in ((torch.ones(6, 3), 2.0), (torch.zeros(6, 3), 1.0)):
        loss = column_orthogonality(projection.requires_grad_())
        loss.backward()
        assert loss.item() == pytest.approx(expected)
        assert projection.grad.isfinite().all()
