"""Numbers of floating-point operations, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from bdlf.config.schema import Beg, Dfe
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.networks.cost import gflops_per_image


def built(blocks: int) -> BDLF:
    torch.manual_seed(0)
    return BDLF(
        Backbone("resnet10"),
        5,
        features={"detail"},
        logits=set(),
        dfe=Dfe(blocks=blocks, mask_own_identity=True),
        beg=Beg(),
    )


def test_a_block_more_costs_what_its_convolutions_do():
    """At stage 3 of a 64 x 32 image, 256 channels on 4 x 2 positions: three F of 128 -> 256 -> 256 -> 128."""
    (one, inference), (three, same) = (gflops_per_image(built(blocks), 64, 32) for blocks in (1, 3))
    by_hand = 3 * 2 * (4 * 2) * (128 * 256 + 9 * 256 + 256 * 128)
    assert three - one == pytest.approx(3 * 2 * by_hand / 1e9, rel=1e-9)
    assert inference == same < one / 3, "blocks cost nothing at inference"
    taught, scored = gflops_per_image(built(1), 64, 32, teacher=True)
    assert taught == pytest.approx(one * 4 / 3, rel=1e-9) and scored == inference


def test_counting_leaves_the_model_as_it_is():
    model = built(1).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gflops_per_image(model, 64, 32)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
