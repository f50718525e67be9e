"""Values that the public functions of AGW, CAJ, LUPI, DEEN, MMN and SGIEL gave on a smooth input, in float64."""

from __future__ import annotations

import pytest
import torch

from bdlf import losses
from bdlf.losses.branches import branch_pair_mining

LABELS = torch.tensor([0, 0, 1, 1])
"""Identities of each block."""


def wave(rows: int, columns: int, shift: float = 0.0) -> torch.Tensor:
    i, j = torch.arange(rows).double()[:, None], torch.arange(columns).double()
    return torch.sin(1.3 * i + 0.7 * j + 0.1 * i * j + shift)


def blocks(rows: int, columns: int, shift: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Blocks of four rows."""
    return wave(rows, columns, shift).split(4)


THREE = LABELS.repeat(3)
VISIBLE, INFRARED, INTERMEDIATE = blocks(12, 5)
VALUES = {
    "tri": (losses.triplet(wave(12, 5), THREE), 0.6173054439),
    "wrt released": (losses.weighted_triplet(wave(12, 5), THREE, form="released"), 0.4996104184),
    "wrt": (losses.weighted_triplet(wave(12, 5), THREE), 0.4996087150),
    "sqd released": (losses.squared_difference(wave(12, 5), THREE, form="released"), 0.5657582315),
    "wrt released, far": (losses.weighted_triplet(10 * wave(12, 5), THREE, form="released"), 23.8527940208),
    "wrt, far": (losses.weighted_triplet(10 * wave(12, 5), THREE), 3.5582530100),
    "sqd released, far": (losses.squared_difference(10 * wave(12, 5), THREE, form="released"), 88.0),
    "cpm of one branch": (branch_pair_mining(*blocks(16, 5), LABELS), 0.2873137511),
    "ort": (losses.branch_orthogonality(*blocks(24, 5)[2:]), 0.3412889604),
    "tri_middle": (losses.middle_triplet(*blocks(16, 5), LABELS), 0.4321404551),
    "tri_dual": (losses.dual_triplet(VISIBLE, INFRARED, INTERMEDIATE, LABELS), 0.3334853730),
    "colour_free": (losses.colour_free(VISIBLE, INTERMEDIATE), 6.3533962074),
    "ce": (losses.distillation(wave(8, 3), wave(8, 3, 1)), 1.1106067046),
    "kl_erased": (losses.erased_distillation(*blocks(8, 5, 0.5), *blocks(8, 3, 2), LABELS), 4.1459225157),
    "ortho": (losses.column_orthogonality(wave(6, 2, 0.3)), 0.6061432913),
}


@pytest.mark.parametrize(("value", "expected"), VALUES.values(), ids=VALUES)
def test_value_of_the_public_code(value: torch.Tensor, expected: float) -> None:
    assert value.item() == pytest.approx(expected, rel=0, abs=1e-9)
