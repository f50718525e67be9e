"""The step against the same step written out with plain PyTorch, and faster kinds of step against the plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from bdlf.config.schema import BDLF_TERMS, Dfe
from bdlf.data.batches import Batch
from bdlf.methods.bdlf import BDLF
from bdlf.methods.sgiel import SGIEL
from bdlf.networks.backbone import Backbone
from bdlf.objective import Objective
from bdlf.training.ema import Averaged
from bdlf.training.step import Learner, Stepper

RATES = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
CLIP = 165.0
STEPS = 4


def network(objective: Objective) -> BDLF:
    torch.manual_seed(0)
    made = BDLF(
        Backbone("resnet10"),
        4,
        features=objective.features,
        logits=objective.logits,
        dfe=Dfe(blocks=2, init="default"),
    )
    return made.train()


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 0, 2, 2, 3, 3]).repeat(2)
    return [(torch.randn(12, 3, 32, 16, generator=random), labels) for _ in range(STEPS)]


def stepped(*, compiled: str = "none", steps: int = STEPS) -> tuple[Stepper, BDLF, Averaged]:
    objective = Objective(dict.fromkeys(BDLF_TERMS, 1.0))
    fabric, made = Fabric(accelerator="cpu", devices=1), network(objective)
    if compiled != "none":
        made.compile(mode=compiled)
    model = fabric.setup_module(made)
    optimizer = torch.optim.SGD(made.parameters(), fused=True, **RATES)
    averaged = Averaged(made, 0.6)
    one = Stepper(Learner(fabric, made, model, optimizer, objective, averaged, CLIP))
    one.begin({})
    for number, (images, labels) in enumerate(batches()[:steps]):
        one.step(Batch(images, labels), number / STEPS)
    return one, made, averaged


def written_out() -> tuple[dict[str, float], BDLF, list[torch.Tensor], list[float]]:
    """The sums of the terms, the network, the averages of its floating-point state, and the norms of the gradients."""
    objective = Objective(dict.fromkeys(BDLF_TERMS, 1.0))
    plain = network(objective)
    optimizer = torch.optim.SGD(plain.parameters(), foreach=False, **RATES)
    sums: dict[str, float] = {}
    norms, mean = [], []
    for number, (images, labels) in enumerate(batches()):
        losses = objective(plain(images, labels), labels, number / STEPS)
        optimizer.zero_grad()
        losses.total.backward()
        norms.append(float(nn.utils.clip_grad_norm_(plain.parameters(), CLIP)))
        optimizer.step()
        for name, value in {"total": losses.total.detach(), **losses.values}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        now = [tensor.clone() for tensor in plain.state_dict().values() if tensor.is_floating_point()]
        keep = min(1 - 1 / (number + 1), 0.6)
        mean = [keep * old + (1 - keep) * new for old, new in zip(mean, now, strict=True)] if mean else now
    return sums, plain, mean, norms


def test_steps_are_those_written_out():
    sums, plain, mean, norms = written_out()
    assert min(norms) < CLIP < max(norms), "some are clipped, some are not"
    one, made, averaged = stepped()
    seen = one.look()
    assert seen.taken == STEPS and seen.wrong is None
    assert {name: seen.sums[name] for name in sums} == pytest.approx(sums, rel=1e-4)
    assert seen.sums["gradient_norm"] == pytest.approx(sum(norms), rel=1e-4)
    close(made.state_dict(), plain.state_dict(), 1e-4)
    of_average = [tensor for tensor in averaged.module.state_dict().values() if tensor.is_floating_point()]
    for got, expected in zip(of_average, mean, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_within_rounding():
    """1e-3 after one step: sums are taken in another order. Further steps at so high a rate multiply any difference."""
    one, made, _ = stepped(steps=1)
    other, compiled, _ = stepped(steps=1, compiled="default")
    sums = one.look().sums
    assert other.look().sums == pytest.approx(sums, rel=1e-3, abs=1e-3)
    close(compiled.state_dict(), made.state_dict(), 1e-3)
    assert [*compiled.state_dict()] == [*made.state_dict()]
    assert compiled._compiled_call_impl is not None and copy.deepcopy(compiled)._compiled_call_impl is None


def close(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(
            state[name], tensor, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_teacher_sees_the_batch_in_training_mode_and_its_statistics_do_not_move():
    """Two steps of SGIEL, written out with a copy of the average as the teacher."""
    weights = dict.fromkeys(("id", "id_shape", "related"), 1.0)
    objective = Objective(weights, ramp=0.0)
    fabric = Fabric(accelerator="cpu", devices=1)
    made = SGIEL(Backbone("resnet10"), 4, features=objective.features, logits=objective.logits).train()
    plain = copy.deepcopy(made)
    optimizer = torch.optim.SGD(made.parameters(), fused=True, **RATES)
    averaged = Averaged(made, 0.6)
    one = Stepper(Learner(fabric, made, fabric.setup_module(made), optimizer, objective, averaged, None))
    one.begin({})
    twins = [(torch.cat([images, images.flip(3)]), labels.repeat(2)) for images, labels in batches()[:2]]
    for images, labels in twins:
        one.step(Batch(images, labels), 0.5)

    slow = torch.optim.SGD(plain.parameters(), foreach=False, **RATES)
    mean = {name: value.clone() for name, value in plain.state_dict().items()}
    found = 0.0
    for number, (images, labels) in enumerate(twins):
        teacher = copy.deepcopy(plain)
        teacher.load_state_dict(mean)
        with torch.no_grad():
            taught = teacher.train()(images, labels)
        embeddings = plain(images, labels)
        embeddings.teacher = taught
        losses = objective(embeddings, labels, 0.5)
        slow.zero_grad()
        losses.total.backward()
        slow.step()
        found += float(losses.values["related"])
        share = 1 / (number + 1)
        for name, value in plain.state_dict().items():
            mean[name] = (
                value.clone() if number == 0 or not value.is_floating_point() else torch.lerp(mean[name], value, share)
            )
    assert one.look().sums["related"] == pytest.approx(found, rel=1e-5)
    for name, value in averaged.module.state_dict().items():
        assert torch.allclose(value, mean[name], rtol=1e-4, atol=1e-5), name
