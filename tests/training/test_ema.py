from __future__ import annotations

import pytest
import torch
from torch import nn

from bdlf.system.errors import InputError
from bdlf.training.ema import Averaged


def _moved(model: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.add_(3)


@pytest.mark.parametrize("decay", [0.999, 0.6])
def test_average_equals_the_recursion_written_out(decay):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    averaged = Averaged(model, decay)
    expected = None
    history = []
    for t in range(7):
        _moved(model, generator)
        averaged.update(model, torch.tensor(True))
        now = [tensor.clone() for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point()]
        history.append(now)
        alpha = min(1 - 1 / (t + 1), decay)
        expected = (
            now
            if expected is None
            else [alpha * old + (1 - alpha) * new for old, new in zip(expected, now, strict=True)]
        )
    got = [
        tensor for tensor in [*averaged.module.parameters(), *averaged.module.buffers()] if tensor.is_floating_point()
    ]
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
    if decay == 0.999:  # a short run: the plain mean
        torch.testing.assert_close(got[0], torch.stack([now[0] for now in history]).mean(0))
    assert averaged.module[1].num_batches_tracked == model[1].num_batches_tracked == 21


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_impossible_decay(decay):
    with pytest.raises(InputError, match=r"ema\.decay"):
        Averaged(nn.Linear(1, 1), decay)


def test_nothing_moves_where_it_is_told_so():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    averaged = Averaged(model, 0.6)
    for _ in range(2):
        _moved(model, generator)
        averaged.update(model, torch.tensor(True))
    before = [tensor.clone() for tensor in averaged.module.state_dict().values() if tensor.is_floating_point()]
    _moved(model, generator)
    averaged.update(model, torch.tensor(False))
    after = [tensor for tensor in averaged.module.state_dict().values() if tensor.is_floating_point()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
