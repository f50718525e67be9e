"""`wrt` and `sqd` against loops, and what the released form does where identities are far apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad, gradcheck

from bdlf.losses import squared_difference, weighted_triplet
from bdlf.losses.weighted_triplets import weighted_distances
from bdlf.system.errors import InputError

LABELS = torch.tensor([3, 1, 3, 0, 1, 3, 0, 8])  # the last row is the only one of its identity
FORMS = ["softmax", "released"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_distances(features: torch.Tensor, labels: torch.Tensor, form: str) -> list[tuple[float, float]]:
    """a and b of each row."""
    rows, identities = features.tolist(), labels.tolist()
    both = []
    for i, anchor in enumerate(rows):
        positives = [max(1e-6, math.dist(anchor, row)) for j, row in enumerate(rows) if identities[j] == identities[i]]
        negatives = [math.dist(anchor, row) for j, row in enumerate(rows) if identities[j] != identities[i]]
        extra = 0.0 if form == "softmax" else 1e-6
        far = [math.exp(d - max(positives)) for d in positives]
        near = [math.exp(-d) for d in negatives]
        a = sum(w * d for w, d in zip(far, positives, strict=True)) / (sum(far) + extra)
        b = sum(w * d for w, d in zip(near, negatives, strict=True)) / (sum(near) + extra)
        both.append((a, b))
    return both


def slow_weighted_triplet(features: torch.Tensor, labels: torch.Tensor, form: str) -> float:
    losses = [math.log(1 + math.exp(a - b)) for a, b in slow_distances(features, labels, form)]
    return sum(losses) / len(losses)


def slow_squared_difference(features: torch.Tensor, labels: torch.Tensor, form: str, cut: float) -> float:
    losses = []
    for a, b in slow_distances(features, labels, form):
        squared = min((a - b) ** 2, cut)
        losses.append(math.log(1 + math.exp(squared if a > b else -squared)))
    return sum(losses) / len(losses)


def some_of_both_signs() -> torch.Tensor:
    """Features of which some rows are closer to their own identity and some to another one."""
    features = random(8, 4, seed=3) + 0.5 * random(9, 4, seed=1)[LABELS]
    pairs = slow_distances(features, LABELS, "softmax")
    assert 2 < sum(a > b for a, b in pairs) < 6
    return features


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 9.0])
def test_weighted_triplet_equals_the_loop(form: str, scale: float) -> None:
    features = scale * some_of_both_signs()
    assert weighted_triplet(features, LABELS, form=form).item() == pytest.approx(
        slow_weighted_triplet(features, LABELS, form), rel=1e-12
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [0.05, 10.0, 88.0, math.inf])
def test_squared_difference_equals_the_loop(form: str, cut: float) -> None:
    features = 3 * some_of_both_signs()
    assert squared_difference(features, LABELS, form=form, cut=cut).item() == pytest.approx(
        slow_squared_difference(features, LABELS, form, cut), rel=1e-12
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss", [weighted_triplet, squared_difference])
def test_gradient(loss, form: str) -> None:
    features = some_of_both_signs().requires_grad_()
    assert gradcheck(lambda x: loss(x, LABELS, form=form), features)


def test_defaults() -> None:
    features = 6 * some_of_both_signs()
    assert weighted_triplet(features, LABELS) == weighted_triplet(features, LABELS, form="softmax")
    assert squared_difference(features, LABELS) == squared_difference(features, LABELS, form="softmax", cut=88.0)
    assert squared_difference(features, LABELS) != squared_difference(features, LABELS, cut=math.inf)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss", [weighted_triplet, squared_difference])
def test_the_order_of_rows_does_not_matter(loss, form: str) -> None:
    """Neither of an identity's rows among themselves, nor of all rows with their labels."""
    features = some_of_both_signs()
    within = torch.tensor([5, 4, 0, 6, 1, 2, 3, 7])
    assert torch.equal(LABELS[within], LABELS)
    expected = pytest.approx(loss(features, LABELS, form=form).item(), rel=1e-12)
    assert loss(features[within], LABELS, form=form).item() == expected
    assert loss(features.flip(0), LABELS.flip(0), form=form).item() == expected
    assert loss(features, LABELS.roll(1), form=form).item() != expected


def test_the_released_form_loses_sight_of_far_identities() -> None:
    """Two identities, each with its rows at one point, 20 apart, so that b is 20."""
    features = torch.zeros(4, 1, dtype=torch.float64)
    features[2:] = 20
    labels = torch.tensor([0, 0, 1, 1])
    assert weighted_distances(features, labels)[1].tolist() == pytest.approx([20] * 4)
    assert weighted_distances(features, labels, form="released")[1].max() < 0.1


def test_the_released_form_pulls_far_identities_closer() -> None:
    features = torch.tensor([[0.0], [0.5], [16.0], [16.5]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1])
    proper = grad(weighted_triplet(features, labels), features)[0]
    released = grad(weighted_triplet(features, labels, form="released"), features)[0]
    # Descent moves rows against the gradient: identity 1 lies above identity 0.
    assert proper[2:].sum() < 0 < released[2:].sum()


def test_rows_beyond_the_cut_have_no_gradient() -> None:
    features = (100 * some_of_both_signs()).requires_grad_()
    a, b = weighted_distances(features, LABELS)
    assert ((a - b) ** 2 > 89).all()
    assert grad(squared_difference(features, LABELS), features)[0].abs().max() == 0
    assert grad(squared_difference(features, LABELS, cut=math.inf), features)[0].abs().max() > 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("loss", "value"), [(weighted_triplet, math.log(2)), (squared_difference, math.log(2))])
def test_coincident_features_have_no_gradient(loss, value: float, form: str) -> None:
    features = torch.ones(8, 4, requires_grad=True)
    result = loss(features, LABELS, form=form)
    result.backward()
    assert result.item() == pytest.approx(value)
    assert torch.equal(features.grad, torch.zeros(8, 4))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss", [weighted_triplet, squared_difference])
def test_huge_distances_stay_finite_in_float32(loss, form: str) -> None:
    features = (1e3 * some_of_both_signs()).float().requires_grad_()
    result = loss(features, LABELS, form=form)
    result.backward()
    assert result.isfinite() and features.grad.isfinite().all()


def test_small_distances_far_from_the_origin_keep_their_digits() -> None:
    features = (100 + 1e-2 * random(8, 64)).float()
    a = weighted_distances(features, LABELS)[0]
    assert a[:7].tolist() == pytest.approx([a for a, _ in slow_distances(features, LABELS, "softmax")][:7], rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss", [weighted_triplet, squared_difference])
def test_one_identity_is_refused(loss, form: str) -> None:
    with pytest.raises(InputError, match=r"weighted triplet loss: all rows have the same identity; .* two identities"):
        loss(random(8, 4), torch.full((8,), 5), form=form)


@pytest.mark.parametrize("form", FORMS)
def test_one_identity_is_not_a_number_where_the_identities_are_not_checked(form: str, monkeypatch) -> None:
    """So that a run on a GPU stops. The released weights would make b 0."""
    monkeypatch.setattr("bdlf.losses.weighted_triplets.refuse_one_identity", lambda *_: None)
    assert weighted_triplet(random(8, 4), torch.full((8,), 5), form=form).isnan()


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown form 'hard' of the weighted triplet; use 'softmax' or 'released'"):
        weighted_triplet(random(8, 4), LABELS, form="hard")
    with pytest.raises(InputError, match=r"unknown form 'hard' of the weighted triplet; use 'softmax' or 'released'"):
        squared_difference(random(8, 4), LABELS, form="hard")
