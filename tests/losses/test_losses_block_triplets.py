"""Hardest rows of chosen blocks, `tri_dual` and `tri_middle`, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from bdlf.losses import dual_triplet, middle_triplet, triplet
from bdlf.losses.mining import hardest
from bdlf.system.errors import InputError

LABELS = torch.tensor([3, 1, 3, 0, 1, 3, 0])
WITHIN = torch.tensor([[2, 4, 5, 6, 1, 0, 3], [5, 1, 0, 3, 4, 2, 6], [0, 4, 5, 6, 1, 2, 3]])
"""Three orders of rows that keep the labels."""


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


VIS, IR, MIDDLE, OTHER = (random(7, 4, seed=k) + 0.7 * random(4, 4, seed=9)[LABELS] for k in range(4))


def slow_hinges(
    anchors: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, labels: torch.Tensor, margin: float
) -> list[float]:
    identities = labels.tolist()
    hinges = []
    for anchor, own in zip(anchors.tolist(), identities, strict=True):
        far = max(math.dist(anchor, row) for row, id_ in zip(positives.tolist(), identities, strict=True) if id_ == own)
        near = min(
            math.dist(anchor, row) for row, id_ in zip(negatives.tolist(), identities, strict=True) if id_ != own
        )
        hinges.append(max(0.0, margin + far - near))
    return hinges


def slow_dual(visible: torch.Tensor, infrared: torch.Tensor, intermediate: torch.Tensor, margin: float) -> float:
    hinges = slow_hinges(visible, infrared, intermediate, LABELS, margin)
    hinges += slow_hinges(infrared, intermediate, visible, LABELS, margin)
    hinges += slow_hinges(intermediate, visible, infrared, LABELS, margin)
    return sum(hinges) / len(hinges)


def test_hardest_equals_the_loop_and_keeps_sets_of_rows_apart() -> None:
    anchor, positive, negative = torch.stack([VIS, IR]), torch.stack([IR, MIDDLE]), torch.stack([MIDDLE, OTHER])
    far, near = hardest(anchor, positive, negative, LABELS)
    assert far.shape == near.shape == (2, 7)
    for k, blocks in enumerate([(VIS, IR, MIDDLE), (IR, MIDDLE, OTHER)]):
        expected = slow_hinges(*blocks, LABELS, 100.0)
        assert (100 + far[k] - near[k]).tolist() == pytest.approx(expected, rel=1e-12)
        alone = hardest(*blocks, LABELS)
        assert torch.equal(alone[0], far[k]) and torch.equal(alone[1], near[k])


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
def test_dual_triplet_equals_the_loop(margin: float) -> None:
    assert dual_triplet(VIS, IR, MIDDLE, LABELS, margin=margin).item() == pytest.approx(
        slow_dual(VIS, IR, MIDDLE, margin), rel=1e-12
    )


def test_the_cycle_of_the_dual_triplet_matters() -> None:
    value = dual_triplet(VIS, IR, MIDDLE, LABELS).item()
    assert dual_triplet(IR, MIDDLE, VIS, LABELS).item() == pytest.approx(value, rel=1e-12)
    assert dual_triplet(VIS, MIDDLE, IR, LABELS).item() != pytest.approx(value, rel=1e-3)


def test_the_order_of_an_identitys_rows_does_not_matter() -> None:
    assert torch.equal(LABELS[WITHIN], LABELS.expand(3, 7))
    moved = (block[order] for block, order in zip((VIS, IR, MIDDLE), WITHIN, strict=True))
    assert dual_triplet(*moved, LABELS).item() == pytest.approx(dual_triplet(VIS, IR, MIDDLE, LABELS).item(), rel=1e-12)


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
def test_middle_triplet_is_the_mean_of_four_triplets(margin: float) -> None:
    twice = LABELS.repeat(2)
    pairs = [(VIS, MIDDLE), (VIS, OTHER), (IR, MIDDLE), (IR, OTHER)]  # the blocks in order: V, VM, I, IM
    both = [torch.cat(pair) for pair in pairs]
    value = middle_triplet(VIS, IR, MIDDLE, OTHER, LABELS, margin=margin).item()
    slow = [sum(slow_hinges(rows, rows, rows, twice, margin)) / 14 for rows in both]
    assert value == pytest.approx(sum(slow) / 4, rel=1e-12)
    assert value == pytest.approx(sum(triplet(rows, twice, margin).item() for rows in both) / 4, rel=1e-12)


def test_middle_triplet_of_parts_is_the_mean_over_the_parts() -> None:
    blocks = [random(7, 3, 4, seed=k) for k in range(4)]
    parts = [middle_triplet(*(block[:, part] for block in blocks), LABELS).item() for part in range(3)]
    assert len(set(parts)) == 3
    assert middle_triplet(*blocks, LABELS).item() == pytest.approx(sum(parts) / 3, rel=1e-12)


def test_margins_are_0_3_by_default() -> None:
    assert dual_triplet(VIS, IR, MIDDLE, LABELS) == dual_triplet(VIS, IR, MIDDLE, LABELS, margin=0.3)
    assert middle_triplet(VIS, IR, MIDDLE, OTHER, LABELS) == middle_triplet(VIS, IR, MIDDLE, OTHER, LABELS, margin=0.3)


def test_gradients() -> None:
    inputs = tuple(block.clone().requires_grad_() for block in (VIS, IR, MIDDLE, OTHER))
    assert gradcheck(lambda *x: dual_triplet(*x, LABELS, margin=2.0), inputs[:3])
    assert gradcheck(lambda *x: middle_triplet(*x, LABELS, margin=2.0), inputs)
    parts = tuple(random(7, 2, 3, seed=k).requires_grad_() for k in range(4))
    assert gradcheck(lambda *x: middle_triplet(*x, LABELS, margin=2.0), parts)


@pytest.mark.parametrize(("loss", "blocks"), [(dual_triplet, 3), (middle_triplet, 4)])
def test_coincident_features_cost_the_margin_and_have_no_gradient(loss, blocks: int) -> None:
    inputs = [torch.ones(7, 4, requires_grad=True) for _ in range(blocks)]
    value = loss(*inputs, LABELS)
    value.backward()
    assert value.item() == pytest.approx(0.3)
    assert all(torch.equal(block.grad, torch.zeros(7, 4)) for block in inputs)


@pytest.mark.parametrize(("loss", "blocks"), [(dual_triplet, 3), (middle_triplet, 4)])
def test_small_distances_far_from_the_origin_keep_their_digits(loss, blocks: int) -> None:
    inputs = [(100 + 1e-2 * random(7, 64, seed=k)).float() for k in range(blocks)]
    wide = loss(*(block.double() for block in inputs), LABELS, margin=0.0)
    assert loss(*inputs, LABELS, margin=0.0).item() == pytest.approx(wide.item(), rel=1e-4)


@pytest.mark.parametrize(("loss", "blocks", "name"), [(dual_triplet, 3, "dual"), (middle_triplet, 4, "middle")])
def test_one_identity_is_refused(loss, blocks: int, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} triplet loss: all rows have the same identity; .* two identities"):
        loss(*(VIS, IR, MIDDLE, OTHER)[:blocks], torch.full((7,), 5))


def test_a_row_without_a_negative_is_not_a_number_where_the_identities_are_not_checked() -> None:
    """So that a run on a GPU stops instead of learning from a wrong row."""
    assert hardest(VIS, IR, MIDDLE, torch.full((7,), 5))[1].isnan().all()
