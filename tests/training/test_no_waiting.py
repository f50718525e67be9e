"""A training step never makes the host wait: it runs on tensors without values, where looking is an error."""

from __future__ import annotations

import contextlib

import pytest
import torch

from bdlf.data.augment import Augmentation
from bdlf.models import BDLF, Backbone, BegOptions, DetailOptions
from bdlf.objective import TERMS, Objective
from bdlf.training.ema import Averaged
from bdlf.training.step import Stepper

ROWS = 8


class Plain:
    """In place of Fabric and of the fused optimiser, which there is none of for tensors without values."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.param_groups = [{"params": list(network.parameters()), "momentum": 0.9}]
        self.state = {parameter: {} for parameter in network.parameters()}
        self.stepped = 0

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def zero_grad(self, set_to_none: bool) -> None:
        pass

    def step(self) -> None:
        assert self.found_inf.is_meta and self.grad_scale.is_meta
        self.stepped += 1


@pytest.fixture
def stepper(monkeypatch):
    """`stepper(**options of the detail branch)`: of the whole method."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # not on such tensors

    def make(**options):
        objective = Objective(dict.fromkeys(TERMS, 1.0))
        network = BDLF(
            Backbone("resnet10"),
            4,
            features=objective.features,
            logits=objective.logits,
            detail=DetailOptions(blocks=1, **options),
            beg=BegOptions(init="kaiming"),
        ).to("meta")
        plain = Plain(network)
        averaged = Averaged(network, 0.9)
        assert not averaged.n_averaged.is_meta, "or counting would wait"
        return plain, Stepper(plain, network, network, plain, averaged, objective, 10.0)

    return make


def batch():
    images = torch.zeros(ROWS, 32, 16, 3, dtype=torch.uint8, device="meta")
    pixels = Augmentation(pad=2)(images, ROWS // 2, torch.Generator().manual_seed(0))
    return pixels, torch.zeros(ROWS, dtype=torch.int64, device="meta")


@pytest.mark.parametrize("options", [{}, {"mask_own_identity": True}, {"norm": "shared"}])
def test_a_step_does_not_look_at_any_value(stepper, options):
    plain, one = stepper(**options)
    one.begin({})
    for progress in (0.1, 0.5):
        one.step(*batch(), progress)
    assert plain.stepped == 2
    with pytest.raises(RuntimeError, match="meta"):
        one.look()
