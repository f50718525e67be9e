"""Terms in which one prediction or similarity pattern learns from another, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad, gradcheck

from bdlf.losses import distillation, feature_relation, fused_distillation, mutual_distillation
from bdlf.system.errors import InputError


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return tensor.requires_grad_()


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def slow_ce(student: torch.Tensor, target: torch.Tensor) -> float:
    rows = zip(student.tolist(), target.tolist(), strict=True)
    losses = [-sum(t * math.log(s) for t, s in zip(softmax(b), softmax(a), strict=True)) for a, b in rows]
    return sum(losses) / len(losses)


def slow_relation(projected: torch.Tensor, detail: torch.Tensor, normalized: bool) -> float:
    def gram(features: torch.Tensor) -> list[list[float]]:
        rows = features.tolist()
        if normalized:
            rows = [[value / math.hypot(*row) for value in row] for row in rows]
        return [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]

    differences = [
        [a - b for a, b in zip(*rows, strict=True)] for rows in zip(gram(projected), gram(detail), strict=True)
    ]
    squares = [value**2 for row in differences for value in softmax(row)]
    return sum(squares) if normalized else sum(squares) / len(squares)


A, B, C = random(6, 5, seed=1), 2 * random(6, 5, seed=2), random(6, 5, seed=3)


def test_distillation_equals_the_loop_and_teaches_only_the_student() -> None:
    student, target = random(6, 5, seed=1), random(6, 5, seed=2)
    loss = distillation(student, target)
    assert loss.item() == pytest.approx(slow_ce(student, target), rel=1e-12)
    loss.backward()
    assert target.grad is None
    torch.testing.assert_close(student.grad, (student.softmax(1) - target.softmax(1)).detach() / 6)
    assert gradcheck(lambda x: distillation(x, target), student)


@pytest.mark.parametrize(("reduction", "share"), [("sum", 1.0), ("mean", 0.5)])
def test_mutual_distillation_goes_both_ways(reduction: str, share: float) -> None:
    loss = mutual_distillation(A, B, reduction=reduction)
    assert loss.item() == pytest.approx(share * (slow_ce(A, B) + slow_ce(B, A)), rel=1e-12)
    for got, student, target in zip(grad(loss, (A, B)), (A, B), (B, A), strict=True):
        torch.testing.assert_close(got, share * grad(distillation(student, target), student)[0])


@pytest.mark.parametrize(("reduction", "share"), [("sum", 1.0), ("mean", 0.5)])
def test_fused_distillation_teaches_both_modalities_and_not_the_fused_feature(reduction: str, share: float) -> None:
    loss = fused_distillation(A, B, C, reduction=reduction)
    assert loss.item() == pytest.approx(share * (slow_ce(A, C) + slow_ce(B, C)), rel=1e-12)
    visible, infrared, fused = grad(loss, (A, B, C), allow_unused=True)
    assert fused is None
    torch.testing.assert_close(visible, share * grad(distillation(A, C), A)[0])
    torch.testing.assert_close(infrared, share * grad(distillation(B, C), B)[0])


@pytest.mark.parametrize("form", ["normalized", "raw"])
def test_feature_relation_equals_the_loop(form: str) -> None:
    loss = feature_relation(A, B, form=form)
    assert loss.item() == pytest.approx(slow_relation(A, B, form == "normalized"), rel=1e-12)
    assert gradcheck(lambda x: feature_relation(x, B, form=form), A)
    assert gradcheck(lambda x, y: feature_relation(x, y, form=form, detach=False), (A, B))


def test_feature_relation_stops_the_gradient_at_the_detail_feature_unless_told() -> None:
    assert grad(feature_relation(A, B), (A, B), allow_unused=True)[1] is None
    assert grad(feature_relation(A, B, detach=False), B)[0].abs().min() > 0


def test_feature_relation_of_equal_patterns_is_uniform() -> None:
    """Rotated features have the same Gram matrix: 1 when normalised, 1/B^2 raw."""
    rotation = torch.linalg.qr(random(5, 5, seed=4)).Q
    assert feature_relation(A @ rotation, A).item() == pytest.approx(1, rel=1e-12)
    assert feature_relation(A @ rotation, A, form="raw").item() == pytest.approx(1 / 36, rel=1e-12)


def test_feature_relation_of_wide_features_is_saturated_raw_and_nearly_uniform_normalized() -> None:
    projected, detail = random(64, 2048, seed=5), random(64, 2048, seed=6)
    assert feature_relation(projected, detail, form="raw").item() == pytest.approx(1 / 64, rel=0.1)
    assert 1 < feature_relation(projected, detail).item() < 1.01


def test_feature_relation_of_equal_and_zero_rows_is_finite() -> None:
    for features in (torch.ones(6, 5, requires_grad=True), torch.zeros(6, 5, requires_grad=True)):
        loss = feature_relation(features, torch.ones(6, 5))
        loss.backward()
        assert loss.item() == pytest.approx(1)
        assert features.grad.isfinite().all()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown reduction 'max'.*'sum' or 'mean'"):
        mutual_distillation(A, B, reduction="max")
    with pytest.raises(InputError, match=r"unknown reduction 'max'.*'sum' or 'mean'"):
        fused_distillation(A, B, C, reduction="max")
    with pytest.raises(InputError, match=r"unknown form 'cosine'.*'normalized' or 'raw'"):
        feature_relation(A, B, form="cosine")
