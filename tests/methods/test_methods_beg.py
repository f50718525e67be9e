"""The projection and the fusion against their equations."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from bdlf.methods.bdlf import Fusion, Projection
from bdlf.system.errors import InputError

WIDTH = 12


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_projector(P: torch.Tensor, rank: int, atol: float) -> None:
    assert torch.allclose(P @ P, P, atol=atol)
    assert torch.allclose(P.T, P, atol=atol)
    assert P.trace().item() == pytest.approx(rank, abs=WIDTH * atol)


@pytest.mark.parametrize("form", ["free", "orthogonal"])
def test_starts_at_a_random_orthogonal_projector_of_half_rank(form):
    torch.manual_seed(0)
    first, second = Projection(WIDTH, form=form)(), Projection(WIDTH, form=form)()
    assert_projector(first, rank=WIDTH // 2, atol=1e-5)
    assert torch.linalg.matrix_rank(first) == WIDTH // 2
    assert (first - second).abs().max() > 0.1


def test_kaiming_starts_off_every_projector_where_orth_is_4():
    torch.manual_seed(0)
    width = 512
    P = Projection(width, init="kaiming")()
    orth = ((P @ P - P) ** 2).sum() / width + ((P.T - P) ** 2).sum() / width
    assert orth.item() == pytest.approx(4.0, abs=0.1)


def stepped(projection: Projection, steps: int = 20) -> Projection:
    """Trained with momentum and weight decay towards a matrix that is no projector."""
    optimizer = torch.optim.SGD(projection.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    target = random(WIDTH, WIDTH, seed=5).float()
    for _ in range(steps):
        optimizer.zero_grad()
        ((projection() - target) ** 2).sum().backward()
        optimizer.step()
    return projection


def test_only_the_orthogonal_form_stays_a_projector_while_it_learns():
    torch.manual_seed(0)
    orthogonal = Projection(WIDTH, form="orthogonal")
    before = orthogonal().detach()
    after = stepped(orthogonal)().detach()
    assert (after - before).abs().max() > 0.1
    assert_projector(after, rank=WIDTH // 2, atol=1e-5)
    free = stepped(Projection(WIDTH), steps=1)()
    assert (free @ free - free).abs().max() > 0.1


def test_orthogonal_form_survives_copy_average_and_checkpoint():
    torch.manual_seed(0)
    projection = Projection(WIDTH, form="orthogonal")
    average = AveragedModel(projection, use_buffers=True)
    for _ in range(3):
        average.update_parameters(stepped(projection, steps=1))
    assert_projector(average.module(), rank=WIDTH // 2, atol=1e-5)
    assert torch.equal(copy.deepcopy(projection)(), projection())
    file = io.BytesIO()
    torch.save(projection.state_dict(), file)
    file.seek(0)
    fresh = Projection(WIDTH, form="orthogonal")
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(), projection())


def test_contradictory_and_unknown_options_are_named():
    with pytest.raises(InputError, match="free, orthogonal"):
        Projection(WIDTH, form="full")
    with pytest.raises(InputError, match="projector, kaiming"):
        Projection(WIDTH, init="eye")
    with pytest.raises(InputError, match="starts at a projector"):
        Projection(WIDTH, form="orthogonal", init="kaiming")


@pytest.mark.parametrize("scaled", [True, False])
def test_fusion_is_equation_16(scaled):
    torch.manual_seed(0)
    n, C = 4, WIDTH
    fusion = Fusion(C, scaled=scaled, zero_value=False).double()
    base = random(2 * n, C)
    Z_V, Z_I = base[:n], base[n:]
    channels = torch.zeros(C, C, dtype=torch.float64)  # (Z_V Pq)^T (Z_I Pk), summed over the batch
    for k in range(n):
        channels += torch.outer(Z_V[k] @ fusion.Pq, Z_I[k] @ fusion.Pk)
    middle = torch.stack([channels @ (Z_I[k] @ fusion.Pv) / C + Z_V[k] for k in range(n)])
    expected = Z_I.clone()
    for row in range(n):
        for other in range(n):
            weight = (Z_I[row] @ fusion.Qq) @ (middle[other] @ fusion.Qk) * 2 / (2 * n)
            expected[row] += weight / (math.sqrt(C) if scaled else 1) * (middle[other] @ fusion.Qv)
    out = fusion(base)
    assert out.shape == (n, C)
    assert torch.allclose(out, expected)
    assert (out - Z_I).abs().max() > 0.1


def test_zero_value_starts_at_the_infrared_base_and_learns():
    base = random(8, WIDTH).float()
    fusion = Fusion(WIDTH)
    out = fusion(base)
    assert torch.equal(out, base[4:])
    (out**2).sum().backward()
    assert fusion.Qv.grad is not None and fusion.Qv.grad.abs().max() > 0


def test_literal_batch_step_outgrows_its_input_and_the_scaled_one_does_not():
    torch.manual_seed(0)
    base = torch.randn(64, 512)
    grown = {scaled: Fusion(512, scaled=scaled, zero_value=False)(base).std().item() for scaled in (True, False)}
    assert grown[False] > 3
    assert grown[True] < 1.5
