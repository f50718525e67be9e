from __future__ import annotations

import pytest

from bdlf.system.errors import InputError
from bdlf.training.schedule import check_schedule, rate_factor


@pytest.mark.parametrize(
    ("milestones", "expected"),
    [
        (
            [20, 95, 180],
            {0: 0.01, 4: 0.05, 9: 0.1, 10: 0.1, 19: 0.1, 20: 0.01, 94: 0.01, 95: 1e-3, 179: 1e-3, 180: 1e-4, 219: 1e-4},
        ),
        ([70, 130, 180], {0: 0.01, 9: 0.1, 69: 0.1, 70: 0.01, 129: 0.01, 130: 1e-3, 179: 1e-3, 180: 1e-4, 219: 1e-4}),
    ],
)
def test_the_papers_rates(milestones, expected):
    rates = {epoch: 0.1 * rate_factor(epoch, warmup_epochs=10, milestones=milestones) for epoch in expected}
    assert rates == pytest.approx(expected)


def test_no_warmup():
    assert rate_factor(0, warmup_epochs=0, milestones=[1]) == 1
    assert rate_factor(1, warmup_epochs=0, milestones=[1]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("schedule.epochs", {"epochs": 0}),
        ("schedule.warmup_epochs", {"warmup_epochs": -1}),
        ("schedule.steps_per_epoch", {"steps_per_epoch": 0}),
        ("schedule.milestones", {"milestones": [5, 5]}),
        ("schedule.milestones", {"milestones": [0]}),
    ],
)
def test_impossible_schedules_are_named(key, change):
    good = {"epochs": 1, "warmup_epochs": 0, "milestones": [3, 9], "steps_per_epoch": None}
    check_schedule(**good)
    with pytest.raises(InputError, match=key):
        check_schedule(**{**good, **change})
