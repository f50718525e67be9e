"""`cpm` and `ort` against loops over identities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch.autograd import grad, gradcheck

from bdlf.losses import branch_orthogonality, centre_pair_mining
from bdlf.losses.branches import branch_pair_mining
from bdlf.system.errors import InputError

LABELS = torch.tensor([3, 1, 3, 0, 1, 3])  # identities with three, two and one row
Rows = list[list[float]]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


VIS, IR, VIS1, IR1, VIS2, IR2 = (random(6, 3, seed=k) + 0.5 * random(4, 3, seed=9)[LABELS] for k in range(6))
BRANCH = (VIS, IR, VIS1, IR1)


def centres(block: torch.Tensor) -> dict[int, list[float]]:
    rows = block.tolist()
    own = {p: [row for row, label in zip(rows, LABELS.tolist(), strict=True) if label == p] for p in (0, 1, 3)}
    return {p: [sum(column) / len(column) for column in zip(*rows, strict=True)] for p, rows in own.items()}


def slow_branch(
    blocks: Sequence[torch.Tensor], margin: float, form: str, near: Sequence[torch.Tensor] | None = None
) -> float:
    """`near`: the blocks of which the distances within a modality are taken, where they shall not change."""
    visible, infrared, visible_branch, infrared_branch = map(centres, blocks)
    fixed = [centres(block) for block in near or blocks]
    sides = [
        (visible, infrared, visible_branch, fixed[0], fixed[2]),
        (infrared, visible, infrared_branch, fixed[1], fixed[3]),
    ]

    def hinge(t: float) -> float:
        return max(0.0, t + margin)

    total = 0.0
    for own, other, branch, near_own, near_branch in sides:
        for p in own:
            to_other = math.dist(other[p], branch[p])
            to_own = math.dist(near_own[p], near_branch[p])
            apart = min(math.dist(own[p], own[q]) for q in own if q != p)
            branch_apart = min(math.dist(branch[p], branch[q]) for q in own if q != p)
            if form == "paper":
                total += hinge(to_other - to_own - apart) / 3
            else:
                total += hinge(to_other - to_own) / 3
                total += 0.5 * (hinge(to_other - branch_apart) + hinge(to_other - apart)) / 3
    return total / 2


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 3.0])
def test_one_branch_equals_the_loop(form: str, margin: float) -> None:
    value = branch_pair_mining(*BRANCH, LABELS, margin=margin, form=form).item()
    assert value == pytest.approx(slow_branch(BRANCH, margin, form), rel=1e-12)


@pytest.mark.parametrize("form", ["released", "paper"])
def test_two_branches_are_summed(form: str) -> None:
    options = {"margin": 1.5, "form": form}
    first, second = slow_branch((VIS, IR, VIS1, IR1), **options), slow_branch((VIS, IR, VIS2, IR2), **options)
    value = centre_pair_mining(VIS, IR, VIS1, IR1, VIS2, IR2, LABELS, **options).item()
    assert min(first, second) > 0
    assert value == pytest.approx(first + second, rel=1e-12)


def test_defaults() -> None:
    blocks = (VIS, IR, VIS1, IR1, VIS2, IR2)
    expected = centre_pair_mining(*blocks, LABELS, margin=0.2, form="released")
    assert centre_pair_mining(*blocks, LABELS) == expected
    assert branch_pair_mining(*BRANCH, LABELS) == branch_pair_mining(*BRANCH, LABELS, margin=0.2, form="released")


@pytest.mark.parametrize("form", ["released", "paper"])
def test_modalities_may_be_exchanged_and_an_identitys_rows_reordered(form: str) -> None:
    value = pytest.approx(branch_pair_mining(*BRANCH, LABELS, margin=1.0, form=form).item(), rel=1e-12)
    assert branch_pair_mining(IR, VIS, IR1, VIS1, LABELS, margin=1.0, form=form).item() == value
    assert branch_pair_mining(IR, VIS, VIS1, IR1, LABELS, margin=1.0, form=form).item() != value
    within = torch.tensor([[2, 4, 5, 3, 1, 0], [0, 4, 2, 3, 1, 5], [5, 1, 0, 3, 4, 2], [2, 1, 0, 3, 4, 5]])
    assert torch.equal(LABELS[within], LABELS.expand(4, 6))
    moved = (block[order] for block, order in zip(BRANCH, within, strict=True))
    assert branch_pair_mining(*moved, LABELS, margin=1.0, form=form).item() == value


def test_the_gradient_of_the_paper_form() -> None:
    inputs = tuple(block.clone().requires_grad_() for block in BRANCH)
    assert branch_pair_mining(*inputs, LABELS, margin=3.0, form="paper") > 0
    assert gradcheck(lambda *x: branch_pair_mining(*x, LABELS, margin=3.0, form="paper"), inputs)


def test_the_gradient_of_the_released_form_is_that_of_the_loop_with_the_near_distances_fixed() -> None:
    inputs = [block.clone().requires_grad_() for block in BRANCH]
    gradients = grad(branch_pair_mining(*inputs, LABELS, margin=1.0), inputs)
    step = 1e-6
    for k, block in enumerate(BRANCH):
        for entry in range(block.numel()):
            change = torch.zeros(block.numel(), dtype=block.dtype)
            change[entry] = step
            ends = []
            for sign in (1, -1):
                moved = [*BRANCH[:k], block + sign * change.view_as(block), *BRANCH[k + 1 :]]
                ends.append(slow_branch(moved, 1.0, "released", near=BRANCH))
            assert gradients[k].flatten()[entry].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


def test_near_distances_have_no_gradient_in_the_released_form_alone() -> None:
    """The visible rows stand in one open hinge alone: as the near distance to their branch, which has no gradient."""
    labels = torch.tensor([0, 1])
    visible = torch.tensor([[0.0, 0.0], [1000.0, 0.0]], dtype=torch.float64, requires_grad=True)
    infrared = (visible.detach() + torch.tensor([0.0, 5.0])).requires_grad_()
    blocks = (visible, infrared, visible.detach() + torch.tensor([0.1, 0.0]), visible.detach() + torch.tensor([0, 0.1]))
    released = grad(branch_pair_mining(*blocks, labels), (visible, infrared))
    assert released[0].abs().max() == 0 and released[1].abs().max() > 0.1
    paper = grad(branch_pair_mining(*blocks, labels, margin=2000.0, form="paper"), visible)[0]
    assert paper.abs().max() > 0.1


def test_coincident_features_cost_margins_and_have_no_gradient() -> None:
    blocks = [torch.ones(6, 3, requires_grad=True) for _ in range(6)]
    value = centre_pair_mining(*blocks, LABELS)
    value.backward()
    assert value.item() == pytest.approx(2 * 2 * 0.2)
    assert all(block.grad.abs().max() < 1e-6 for block in blocks)


def test_one_identity_and_unknown_forms_are_refused() -> None:
    with pytest.raises(InputError, match=r"centre-guided pair mining: all rows have the same identity; .* two identit"):
        centre_pair_mining(VIS, IR, VIS1, IR1, VIS2, IR2, torch.full((6,), 5))
    with pytest.raises(InputError, match=r"unknown form 'own' of the centre-guided .*; use 'released' or 'paper'"):
        centre_pair_mining(VIS, IR, VIS1, IR1, VIS2, IR2, LABELS, form="own")


def test_branch_orthogonality_equals_the_loop() -> None:
    pairs = [(VIS1, VIS2), (IR1, IR2)]
    products = [
        a * b for pair in pairs for one, other in zip(*pair, strict=True) for a, b in zip(one, other, strict=True)
    ]
    expected = sum(product.item() for product in products) / 36
    assert branch_orthogonality(VIS1, IR1, VIS2, IR2).item() == pytest.approx(expected, rel=1e-12)
    assert branch_orthogonality(IR1, VIS1, IR2, VIS2).item() == pytest.approx(expected, rel=1e-12)
    assert branch_orthogonality(VIS1, IR1, IR2, VIS2).item() != pytest.approx(expected, rel=1e-3)


def test_branch_orthogonality_gradient() -> None:
    inputs = tuple(block.clone().requires_grad_() for block in (VIS1, IR1, VIS2, IR2))
    assert gradcheck(branch_orthogonality, inputs)
