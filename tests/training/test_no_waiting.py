"""A training step never makes the host wait. It is run on tensors without values, where reading one is an error."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from bdlf.config.schema import BDLF_TERMS, Beg, Dfe
from bdlf.data.augment import Augmentation
from bdlf.data.batches import Batch, Batches
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.objective import Objective
from bdlf.training.ema import Averaged
from bdlf.training.loop import Recipe, fit
from bdlf.training.step import Learner, Stepper

ROWS = 8


class Plain:
    """Stands for Fabric and the fused optimiser, neither of which works on tensors without values."""

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
        objective = Objective(dict.fromkeys(BDLF_TERMS, 1.0))
        network = BDLF(
            Backbone("resnet10"),
            4,
            features=objective.features,
            logits=objective.logits,
            dfe=Dfe(blocks=1, **options),
            beg=Beg(init="kaiming"),
        ).to("meta")
        plain = Plain(network)
        averaged = Averaged(network, 0.9)
        assert not averaged.n_averaged.is_meta, "or counting would wait"
        return plain, Stepper(Learner(plain, network, network, plain, objective, averaged, 10.0))

    return make


def batch(device):
    images = torch.zeros(ROWS, 32, 16, 3, dtype=torch.uint8, device=device)
    pixels = Augmentation(pad=2)(images, (torch.arange(ROWS) < ROWS // 2).long(), torch.Generator().manual_seed(0))
    return Batch(pixels, torch.zeros(ROWS, dtype=torch.int64, device=device))


@pytest.mark.parametrize("options", [{}, {"mask_own_identity": True}, {"norm": "shared"}])
def test_a_step_does_not_look_at_any_value(stepper, options):
    plain, one = stepper(**options)
    one.begin({})
    for progress in (0.1, 0.5):
        one.step(batch("meta"), progress)
    assert plain.stepped == 2
    with pytest.raises(RuntimeError, match="meta"):
        one.look()


@pytest.mark.gpu
@pytest.mark.parametrize("look_every", [4, None])
def test_on_a_gpu_nothing_waits_between_looks(look_every, monkeypatch):
    objective = Objective(dict.fromkeys(BDLF_TERMS, 1.0))
    network = BDLF(Backbone("resnet10"), 4, features=objective.features, logits=objective.logits)
    fabric = Fabric(accelerator="cuda", devices=1)
    model = fabric.setup_module(network)
    groups = [{"params": list(network.parameters()), "lr_scale": 1.0}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, fused=True)
    sampler = IdentitySampler(np.repeat(np.arange(4), 4), np.tile(["vis", "ir"], 8), identities=2, images=2, steps=8)
    store = np.random.default_rng(0).integers(0, 256, (16, 64, 32, 3), dtype=np.uint8)
    recipe = Recipe(epochs=2, lr=0.01, warmup_epochs=0, milestones=(), on_nonfinite="stop")
    taken, looked = Stepper.step, Stepper.look

    def step(self, *arguments):
        torch.cuda.set_sync_debug_mode("error" if self.number else "default")  # the first makes what the others use
        self.number += 1
        taken(self, *arguments)

    def look(self):
        torch.cuda.set_sync_debug_mode("default")
        return looked(self)

    monkeypatch.setattr(Stepper, "number", 0, raising=False)
    monkeypatch.setattr(Stepper, "step", step)
    monkeypatch.setattr(Stepper, "look", look)
    averaged = Averaged(network, 0.9)
    images = Images(store, fabric.device, "device")
    progress = list(
        fit(
            Learner(fabric, network, model, optimizer, objective, averaged, 10.0),
            Batches(sampler, images, np.arange(16), Augmentation(pad=2), network.views, seed=0),
            recipe,
            look_every=look_every,
        )
    )
    assert progress[-1].epoch == 2 and int(averaged.n_averaged) == 16
