"""Terms that learn from the labels, against loops."""

from __future__ import annotations

import math

import pytest
import torch

from bdlf.losses import identity, part_identity, triplet
from bdlf.system.errors import InputError

LABELS = torch.tensor([3, 1, 3, 0, 1, 3, 0])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_triplet(features: torch.Tensor, labels: torch.Tensor, margin: float) -> float:
    rows = features.tolist()
    hinges = []
    for i, anchor in enumerate(rows):
        positives = [math.dist(anchor, row) for j, row in enumerate(rows) if j != i and labels[j] == labels[i]]
        negatives = [math.dist(anchor, row) for j, row in enumerate(rows) if labels[j] != labels[i]]
        if positives and negatives:
            hinges.append(max(0.0, margin + max(positives) - min(negatives)))
    return sum(hinges) / len(hinges)


def test_identity_is_the_mean_cross_entropy() -> None:
    logits = random(7, 5)
    rows = [-row[label] + math.log(sum(map(math.exp, row))) for row, label in zip(logits.tolist(), LABELS, strict=True)]
    assert identity(logits, LABELS).item() == pytest.approx(sum(rows) / 7, rel=1e-12)
    assert identity(logits, LABELS.int()) == identity(logits, LABELS)


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("labels", [LABELS.tolist(), [0, 0, 1, 1, 2, 2, 9], [5, 5, 5, 5, 5, 5, 1]])
def test_triplet_equals_the_loop(margin: float, labels: list[int]) -> None:
    features, labels = random(7, 4), torch.tensor(labels)
    assert triplet(features, labels, margin).item() == pytest.approx(slow_triplet(features, labels, margin), rel=1e-12)


def test_triplet_keeps_small_distances_far_from_the_origin() -> None:
    """The Gram form |a|^2 + |b|^2 - 2ab loses these distances in float32."""
    features = (100 + 1e-2 * random(7, 64)).float()
    assert triplet(features, LABELS).item() == pytest.approx(slow_triplet(features, LABELS, 0.3), rel=1e-5)


def test_triplet_gradient() -> None:
    features = random(7, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: triplet(x, LABELS, 2.0), features)


def test_triplet_of_coincident_features_is_the_margin_with_a_finite_gradient() -> None:
    features = torch.ones(7, 4, requires_grad=True)
    loss = triplet(features, LABELS)
    loss.backward()
    assert loss.item() == pytest.approx(0.3)
    assert torch.equal(features.grad, torch.zeros(7, 4))


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5, 6], [4] * 7])
def test_triplet_without_a_usable_row_is_refused(labels: list[int]) -> None:
    with pytest.raises(InputError, match="no row has both a positive and a negative"):
        triplet(random(7, 4), torch.tensor(labels))


def test_part_identity_is_the_mean_over_the_parts_and_its_gradient_is_right() -> None:
    logits = random(7, 3, 5).requires_grad_()
    each = [identity(logits[:, k], LABELS).item() for k in range(3)]
    assert part_identity(logits, LABELS).item() == pytest.approx(sum(each) / 3, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: part_identity(x, LABELS), logits)
